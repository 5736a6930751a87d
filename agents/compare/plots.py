"""Plots evaluations as PNG files: timelines of episodes, and comparisons of controllers.

``draw_timeline`` shows one episode: bandwidth, decisions, latency against the deadline, and the end of each frame.
``draw_comparison`` shows each controller's mean utility, and the shares of frames in time, skipped, late and dropped.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np

from agents.compare.report import KNOWING
from agents.compare.timelines import Timeline
from controller.controllers.registry import LEARNED
from controller.records import SIDES, STATUSES, Bools, Status
from runtime.files.atomic import write_whole
from runtime.observe.summary import percent

#: Most decisions with a line of their own; the rarest ones share one.
MAX_DECISIONS = 10
SIDE_COLOURS = dict(zip(SIDES, ("tab:blue", "tab:green", "tab:orange"), strict=True))
_IN_TIME, _FALLBACK, _LATE, _SKIPPED, _DROPPED = "tab:green", "tab:olive", "tab:red", "tab:gray", "black"
#: Top of the latency axis at most, in deadlines; later answers are drawn at the edge.
_MOST_DEADLINES = 2.0
_SMALL, _NORMAL = 9, 10  # font sizes in points
_AXIS_LABEL_PT = 34  # height of the numbers and the label below an axis


# One episode ------------------------------------------------------------------------------------------------


def draw_timeline(timeline: Timeline, path: Path) -> None:
    """Draw bandwidth, decisions, latency against the deadline, and the end of each frame of one episode."""
    figure, axes = _figure((12, 9), 4, [1.2, 2.4, 2.2, 1.3])
    figure.suptitle(_title(timeline), fontsize=_NORMAL + 2)
    _draw_uplink(axes[0], timeline)
    _draw_decisions(axes[1], timeline)
    _draw_latency(axes[2], timeline)
    _draw_endings(axes[3], timeline)
    axes[3].set_xlabel("capture time of the frame, seconds since the start of the episode")
    save_figure(figure, path)


def _title(timeline: Timeline) -> str:
    figures = {name: None if np.isnan(value) else value for name, value in timeline.figures.items()}
    utility = "unknown" if figures["utility"] is None else f"{figures['utility']:.3f}"
    shares = {"in time": "in_time_frac", "reused": "reused_frac", "late": "late_frac", "dropped": "dropped_frac"}
    ended = ", ".join(f"{percent(figures[key])} {name}" for name, key in shares.items())
    kind, _, trace = timeline.trace.rpartition("/")
    uplink = f"trace {trace} of {kind}" if kind else f"trace {trace}"
    return f"Controller {timeline.controller}, uplink bandwidth: {uplink}\nutility {utility} per frame; {ended}"


def _draw_uplink(axis: Any, timeline: Timeline) -> None:
    from matplotlib.ticker import NullFormatter

    axis.step(timeline.t_s, timeline.uplink_mbps, where="post", color="tab:gray", linewidth=1)
    axis.set_yscale("log")
    axis.yaxis.set_major_formatter("{x:g}")
    narrow = timeline.uplink_mbps.max() < 4 * timeline.uplink_mbps.min()
    axis.yaxis.set_minor_formatter("{x:g}" if narrow else NullFormatter())
    axis.set_ylabel("uplink, Mbit/s")


def _draw_decisions(axis: Any, timeline: Timeline) -> None:
    rows, counts = np.unique(timeline.row[timeline.row >= 0], return_counts=True)
    named = sorted(rows[np.argsort(-counts)][:MAX_DECISIONS])
    height_of = {int(row): height for height, row in enumerate(named, start=1)}
    height = np.array([height_of.get(int(row), 0) for row in timeline.row])
    for side, colour in SIDE_COLOURS.items():
        mine = np.array([row >= 0 and timeline.decisions[row].side == side for row in timeline.row])
        if mine.any():
            axis.scatter(timeline.t_s[mine], height[mine], s=9, color=colour, label=side)
    names = {height: timeline.decisions[row].label for row, height in height_of.items()}
    if len(rows) > len(named):
        names[0] = "other decisions"
    axis.set_yticks(list(names), list(names.values()), fontsize=_SMALL)
    axis.set_ylim(min(names, default=0) - 0.6, max(names, default=0) + 0.6)
    axis.set_ylabel("decision")
    _legend(axis, "computed on")


def _draw_latency(axis: Any, timeline: Timeline) -> None:
    """Latency of the frames that were run and answered; others have none."""
    top = _latency_top(timeline)
    as_decided, fell_back = (_are(timeline, status) for status in (Status.OK, Status.FALLBACK))
    kinds = ((as_decided, _IN_TIME, "in time"), (fell_back, _FALLBACK, "in time, by the\nlocal fallback"))
    for mine, colour, name in (*kinds, (_are(timeline, Status.LATE), _LATE, "late")):
        _scatter(axis, timeline, mine & timeline.answered & (timeline.latency_ms <= top), colour, name)
    beyond = timeline.t_s[timeline.answered & (timeline.latency_ms > top)]
    if len(beyond):
        axis.scatter(beyond, np.full(len(beyond), top), s=16, marker="^", color=_LATE, label="late, beyond the axis")
    axis.axhline(timeline.deadline_ms, color="black", linewidth=1, linestyle="--", label="deadline")
    axis.set_ylim(0, 1.03 * top)
    axis.set_ylabel("latency, ms")
    _legend(axis, "answer")


def _latency_top(timeline: Timeline) -> float:
    """Top of the axis in ms: just above the slowest answer, but between 1.1 and ``_MOST_DEADLINES`` deadlines."""
    slowest_ms = timeline.latency_ms[timeline.answered].max(initial=0.0)
    return float(np.clip(1.08 * slowest_ms, 1.1 * timeline.deadline_ms, _MOST_DEADLINES * timeline.deadline_ms))


def _scatter(axis: Any, timeline: Timeline, mine: Bools, colour: str, name: str) -> None:
    if mine.any():
        axis.scatter(timeline.t_s[mine], timeline.latency_ms[mine], s=9, color=colour, label=name)


def _draw_endings(axis: Any, timeline: Timeline) -> None:
    """A lane for each way in which a frame can end, with a stroke per frame."""
    late = _are(timeline, Status.LATE)
    lanes = {
        "in time": (_are(timeline, Status.OK), _IN_TIME),
        "in time, by local fallback": (_are(timeline, Status.FALLBACK), _FALLBACK),
        "reused, earlier answer stands": (
            np.isin(timeline.status, [STATUSES.index(s) for s in STATUSES if s.reused]),
            _SKIPPED,
        ),
        "answered late": (late & timeline.answered, _LATE),
        "never answered": (late & ~timeline.answered, _LATE),
        "dropped from the queue": (_are(timeline, Status.DROPPED), _DROPPED),
    }
    for height, (mine, colour) in enumerate(reversed(lanes.values())):
        axis.vlines(timeline.t_s[mine], height - 0.35, height + 0.35, color=colour, linewidth=1.2)
    names = [f"{name}: {mine.sum()}" for name, (mine, _) in lanes.items()]
    axis.set_yticks(range(len(lanes)), names[::-1], fontsize=_SMALL)
    axis.set_ylim(-0.6, len(lanes) - 0.4)
    axis.set_ylabel("end of frames")


def _are(timeline: Timeline, status: Status) -> Bools:
    return np.asarray(timeline.status == STATUSES.index(status))


def _legend(axis: Any, title: str) -> None:
    """A legend beside the axis, where it covers no data."""
    if axis.get_legend_handles_labels()[0]:
        legend = axis.legend(loc="upper left", bbox_to_anchor=(1.0, 1.0), fontsize=_SMALL, title=title)
        legend.get_title().set_fontsize(_SMALL)


# All controllers --------------------------------------------------------------------------------------------

_SHARES = {
    "in time": ("in_time_frac", "tab:green"),
    "reused: not run, an earlier answer stands": ("reused_frac", "lightgray"),
    "late or never answered": ("late_frac", "tab:red"),
    "dropped from the queue": ("dropped_frac", "black"),
}


def draw_comparison(controllers: Mapping[str, Any], title: str, path: Path) -> None:
    """Draw each controller's mean utility and the ends of its frames.

    ``controllers``: that part of the report which ``mecpilot evaluate --json`` writes.
    """
    names = sorted(controllers, key=lambda name: controllers[name]["utility"]["mean"] or 0.0)
    figure, (left, right) = _figure((12, 1.9 + 0.42 * len(names)), 1, [1], columns=2)
    figure.suptitle(title, fontsize=_NORMAL + 2)
    _draw_utilities(left, names, controllers)
    _draw_shares(right, names, controllers)
    save_figure(figure, path)


def _draw_utilities(axis: Any, names: Sequence[str], controllers: Mapping[str, Any]) -> None:
    utilities = [controllers[name]["utility"] for name in names]
    for height, (name, utility) in enumerate(zip(names, utilities, strict=True)):
        if utility["mean"] is None:
            continue
        colour = "tab:red" if name == LEARNED else "tab:gray" if name in KNOWING else "tab:blue"
        interval = utility["ci95"] or [utility["mean"]] * 2
        axis.plot(interval, [height, height], color=colour, linewidth=3, alpha=0.6)
        axis.plot(utility["mean"], height, "o", color=colour)
        axis.annotate(f"{utility['mean']:.3f}", (interval[1], height), (6, -3), "data", "offset points")
    axis.set_yticks(range(len(names)), names, fontsize=_NORMAL)
    axis.set_ylim(-0.6, len(names) - 0.4)
    low, high = axis.get_xlim()
    axis.set_xlim(low - 0.05 * (high - low), high + 0.2 * (high - low))  # room for the last annotation
    has_intervals = any(utility["ci95"] is not None for utility in utilities)
    bars = "bars: 95 % interval of the mean" if has_intervals else "one episode, so no intervals"
    axis.set_xlabel(
        "mean utility per frame: score of answers in time and of reused ones\n"
        f"(1 is perfect), minus costs of energy and drops; {bars}"
    )
    axis.grid(axis="x", alpha=0.3)


def _draw_shares(axis: Any, names: Sequence[str], controllers: Mapping[str, Any]) -> None:
    """Stacked bars; every frame belongs to exactly one part."""
    from matplotlib.transforms import ScaledTranslation

    left = np.zeros(len(names))
    for what, (key, colour) in _SHARES.items():
        share = np.array([100 * (controllers[name][key]["mean"] or 0.0) for name in names])
        axis.barh(range(len(names)), share, left=left, color=colour, label=what, height=0.7)
        for height, (start, width) in enumerate(zip(left, share, strict=True)):
            if width >= 6:  # per cent; a number does not fit into less
                text_colour = "black" if colour == "lightgray" else "white"
                at = (start + width / 2, height)
                axis.text(*at, f"{width:.0f}", ha="center", va="center", color=text_colour, fontsize=_SMALL)
        left += share
    axis.set_xlim(0, 100)
    axis.set_ylim(-0.6, len(names) - 0.4)
    axis.set_yticks([])
    axis.set_xlabel("share of all frames, %")
    below = axis.transAxes + ScaledTranslation(0, -_AXIS_LABEL_PT / 72, axis.figure.dpi_scale_trans)
    where: dict[str, Any] = {"loc": "upper center", "bbox_to_anchor": (0.5, 0.0), "bbox_transform": below}
    axis.legend(**where, ncols=2, fontsize=_SMALL, frameon=False)


# Files ------------------------------------------------------------------------------------------------------


def _figure(size: tuple[float, float], rows: int, heights: Sequence[float], columns: int = 1) -> tuple[Any, Any]:
    """A figure that needs no window system, and its axes in one row or column."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=size, layout="constrained")
    grid = {"height_ratios": heights}
    axes = figure.subplots(rows, columns, sharex="col" if rows > 1 else False, squeeze=False, gridspec_kw=grid)
    return figure, axes.ravel()


def save_figure(figure: Any, path: Path) -> None:
    """Write a figure as PNG; the file is complete or unchanged. FailureError if it cannot be written."""
    drawn = BytesIO()
    figure.savefig(drawn, format="png", dpi=110)
    write_whole(path, drawn.getvalue(), "the plot", "choose another --out", make_folder=True)
