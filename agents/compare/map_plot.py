"""Draws a map of kinds of decision over device slowdown and uplink bandwidth: colour is the kind, a number its figure.

``draw_kinds`` is for any such map: of the kind that is best in hindsight (``agents.compare.kind_map``), and of the kind
that a policy chooses most often (``draw_choices``). So the two can be laid side by side.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from agents.compare.plots import SIDE_COLOURS, save_figure
from controller.metrics import NO_KIND
from controller.records import KINDS, SIDES, Floats, Ints

KIND_COLOURS = dict(zip(KINDS, (SIDE_COLOURS[side] for side in SIDES), strict=True))
#: Most bins of each axis of a policy's map.
_SLOWDOWN_BINS, _UPLINK_BINS = 8, 12
#: Depth of colour of the smallest figure; the largest has 1.
_PALEST = 0.12
_FONT_PT = 8


def draw_kinds(
    device_slowdown: Floats, uplink_bps: Floats, kind: Ints, figure_of: Floats, full: float, title: str, path: Path
) -> None:
    """Write the map to a PNG.

    ``device_slowdown``: (Y,), ``uplink_bps``: (X,). ``kind``: (Y, X) number in KINDS, or NO_KIND for an empty cell.
    ``figure_of``: (Y, X) number in each cell, NaN for none. The colour is deepest from ``full`` on, and without number.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(1.9 + 0.62 * len(uplink_bps), 1.7 + 0.42 * len(device_slowdown)), layout="constrained")
    axis = figure.subplots()
    axis.imshow(_colours(kind, figure_of, full), origin="lower", aspect="auto")
    for y, x in zip(*np.nonzero((kind != NO_KIND) & np.isfinite(figure_of)), strict=True):
        axis.text(x, y, _short(figure_of[y, x]), ha="center", va="center", fontsize=_FONT_PT)
    axis.set_xticks(range(len(uplink_bps)), [bandwidth_text(bps) for bps in uplink_bps], fontsize=_FONT_PT)
    axis.set_yticks(range(len(device_slowdown)), [f"{slowdown:.3g}" for slowdown in device_slowdown], fontsize=_FONT_PT)
    axis.set_xlabel("uplink bandwidth, bit/s")
    axis.set_ylabel("device slowdown")
    axis.set_title(title, fontsize=_FONT_PT + 1)
    _add_legend(axis)
    save_figure(figure, path)


def draw_choices(device_slowdown: Floats, uplink_bps: Floats, kind: Ints, title: str, path: Path) -> None:
    """Write the map of the kind that was chosen most often, with its share in per cent, to a PNG.

    All (N,): slowdown and bandwidth at each decided frame, and the number in KINDS of its decision.
    """
    y, slowdown = _binned(device_slowdown, _SLOWDOWN_BINS)
    x, uplink = _binned(np.maximum(uplink_bps, 1e3), _UPLINK_BINS)  # zero has no place on a logarithmic axis
    count = np.zeros((len(slowdown), len(uplink), len(KINDS)))
    np.add.at(count, (y, x, kind), 1)
    decided = count.sum(axis=2)
    most = np.where(decided > 0, count.argmax(axis=2), NO_KIND)
    share = np.where(decided > 0, 100 * count.max(axis=2) / np.maximum(decided, 1), np.nan)
    draw_kinds(slowdown, uplink, most, share, 100.0, title, path)


def bandwidth_text(bps: float) -> str:
    """Two digits and the prefix of the unit: 8 k, 1.5 M."""
    unit, name = (1e6, "M") if bps >= 999.5e3 else (1e3, "k")
    return f"{float(f'{bps / unit:.2g}'):g} {name}"


def _binned(values: Floats, bins: int) -> tuple[Ints, Floats]:
    """Logarithmic bin of each value, and the middle of each bin; one bin where all values are about the same."""
    low, high = float(values.min()), float(values.max())
    edges = np.geomspace(low, high * 1.001, (bins if high > 1.05 * low else 1) + 1)
    found = np.clip(np.searchsorted(edges, values, side="right") - 1, 0, len(edges) - 2)
    return found, np.sqrt(edges[:-1] * edges[1:])


def _colours(kind: Ints, figure_of: Floats, full: float) -> Floats:
    """(Y, X, 3) red, green, blue; empty cells are white."""
    from matplotlib.colors import to_rgb

    pure = np.array([to_rgb(colour) for colour in KIND_COLOURS.values()] + [(1.0, 1.0, 1.0)])[kind]
    share = np.clip(np.nan_to_num(figure_of / full, nan=1.0), 0.0, 1.0)
    depth = (_PALEST + (1 - _PALEST) * share)[:, :, None]
    return np.asarray(1.0 - depth * (1.0 - pure))


def _short(figure: float) -> str:
    """A number of at most three digits; a share of 1 without the leading zero."""
    return f"{figure:.0f}" if figure >= 10 else f"{figure:.2f}".removeprefix("0")


def _add_legend(axis: Any) -> None:
    from matplotlib.patches import Patch

    patches = [Patch(color=colour, label=kind) for kind, colour in KIND_COLOURS.items()]
    axis.legend(handles=patches, loc="upper left", bbox_to_anchor=(1.0, 1.0), fontsize=_FONT_PT, frameon=False)
