"""A picture of where a policy computes, by uplink bandwidth, over many episodes."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from agents.compare.plots import SIDE_COLOURS, save_figure
from controller.records import SIDES, Decision, Floats, Ints

_BINS = 12


def draw_decision_map(uplink_mbps: Floats, row: Ints, decisions: tuple[Decision, ...], title: str, path: Path) -> None:
    """Shares of decisions on either side over the bandwidth; (N,) per decided frame."""
    from matplotlib.figure import Figure

    shown = np.maximum(uplink_mbps, 1e-3)  # a link without any bandwidth has no place on a logarithmic axis
    edges = np.geomspace(shown.min(), shown.max() * 1.001, _BINS + 1)
    place = np.clip(np.searchsorted(edges, shown, side="right") - 1, 0, _BINS - 1)
    count = np.bincount(place, minlength=_BINS)
    side_of = np.array([decision.side for decision in decisions])[row]
    figure = Figure(figsize=(8, 4), layout="constrained")
    axis = figure.subplots()
    below = np.zeros(_BINS)
    for name in SIDES:
        share = 100 * np.bincount(place[side_of == name], minlength=_BINS) / np.maximum(count, 1)
        axis.bar(edges[:-1], share, np.diff(edges), below, align="edge", color=SIDE_COLOURS[name], label=name)
        below += share
    axis.set_xscale("log")
    axis.set_xlim(edges[0], edges[-1])
    axis.set_xlabel("uplink at capture, Mbit/s")
    axis.set_ylabel("decisions, %")
    axis.set_title(title)
    axis.legend(loc="upper left", bbox_to_anchor=(1.0, 1.0))
    save_figure(figure, path)
