"""Plots where a policy computes (device, split, MEC) over the uplink bandwidth."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from agents.compare.plots import SIDE_COLOURS, save_figure
from controller.records import SIDES, Decision, Floats, Ints

_BINS = 12


def draw_decision_map(uplink_mbps: Floats, row: Ints, decisions: tuple[Decision, ...], title: str, path: Path) -> None:
    """Write stacked shares of device, split and MEC per bin of bandwidth to a PNG.

    ``uplink_mbps`` and ``row``: (N,), bandwidth at capture and row of ``decisions`` of each decided frame.
    """
    from matplotlib.figure import Figure

    bandwidth = np.maximum(uplink_mbps, 1e-3)  # zero has no place on a logarithmic axis
    edges = np.geomspace(bandwidth.min(), bandwidth.max() * 1.001, _BINS + 1)
    bin_of = np.clip(np.searchsorted(edges, bandwidth, side="right") - 1, 0, _BINS - 1)
    count = np.bincount(bin_of, minlength=_BINS)
    side_of = np.array([decision.side for decision in decisions])[row]
    figure = Figure(figsize=(8, 4), layout="constrained")
    axis = figure.subplots()
    below = np.zeros(_BINS)
    for name in SIDES:
        share = 100 * np.bincount(bin_of[side_of == name], minlength=_BINS) / np.maximum(count, 1)
        axis.bar(edges[:-1], share, np.diff(edges), below, align="edge", color=SIDE_COLOURS[name], label=name)
        below += share
    axis.set_xscale("log")
    axis.set_xlim(edges[0], edges[-1])
    axis.set_xlabel("uplink bandwidth at capture, Mbit/s")
    axis.set_ylabel("decisions, %")
    axis.set_title(title)
    axis.legend(loc="upper left", bbox_to_anchor=(1.0, 1.0), title="computed on")
    save_figure(figure, path)
