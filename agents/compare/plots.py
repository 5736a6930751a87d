"""Plots as PNG files: the timeline of an episode, and the comparison of controllers.

``timeline`` shows one episode: the bandwidth, what was decided, latency against the deadline, and what became of each
frame. ``comparison`` shows the mean utility of every controller, and what became of its frames.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np

from agents.compare.timelines import Timeline
from controller.controllers.registry import BOUND, LEARNED
from controller.records import SIDES, STATUSES, Bools, Status
from runtime.files.atomic import write_whole
from runtime.observe.summary import percent

#: Decisions named on the axis; the rarest ones share a line.
MAX_DECISIONS = 10
SIDE_COLOURS = dict(zip(SIDES, ("tab:blue", "tab:green", "tab:orange"), strict=True))
_IN_TIME, _FALLBACK, _LATE, _SKIPPED, _DROPPED = "tab:green", "tab:olive", "tab:red", "tab:gray", "black"
#: Answers later than this many deadlines are drawn at the edge.
_MOST_DEADLINES = 2.0
_SMALL, _NORMAL = 9, 10  # points; still legible at 100 %


# One episode ------------------------------------------------------------------------------------------------


def draw_timeline(timeline: Timeline, path: Path) -> None:
    """Bandwidth, decisions, latency against the deadline, and what became of each frame of one episode."""
    figure, axes = _figure((11, 9), 4, [1.2, 2.4, 2.2, 1.3])
    figure.suptitle(_title(timeline), fontsize=_NORMAL + 2)
    _draw_uplink(axes[0], timeline)
    _draw_decisions(axes[1], timeline)
    _draw_latency(axes[2], timeline)
    _draw_endings(axes[3], timeline)
    axes[3].set_xlabel("seconds since the episode began; one mark per frame, at its capture")
    save_figure(figure, path)


def _title(timeline: Timeline) -> str:
    figures = {name: None if np.isnan(value) else value for name, value in timeline.figures.items()}
    utility = "unknown" if figures["utility"] is None else f"{figures['utility']:.3f}"
    shares = {"in time": "in_time_frac", "reused": "reused_frac", "late": "late_frac", "dropped": "dropped_frac"}
    ended = ", ".join(f"{percent(figures[key])} {name}" for name, key in shares.items())
    return f"{timeline.controller} over the uplink {timeline.trace}\nutility {utility} per frame; {ended}"


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
    place = {int(row): height for height, row in enumerate(named, start=1)}
    height = np.array([place.get(int(row), 0) for row in timeline.row])
    for side, colour in SIDE_COLOURS.items():
        mine = np.array([row >= 0 and timeline.decisions[row].side == side for row in timeline.row])
        if mine.any():
            axis.scatter(timeline.t_s[mine], height[mine], s=9, color=colour, label=side)
    names = {height: timeline.decisions[row].label for row, height in place.items()}
    if len(rows) > len(named):
        names[0] = "others"
    axis.set_yticks(list(names), list(names.values()), fontsize=_SMALL)
    axis.set_ylim(min(names, default=0) - 0.6, max(names, default=0) + 0.6)
    axis.set_ylabel("decided")
    _legend(axis, "computed on")


def _draw_latency(axis: Any, timeline: Timeline) -> None:
    """Only what was measured: frames that were run and answered."""
    top = _latency_top(timeline)
    as_decided, fell_back = (_are(timeline, status) for status in (Status.OK, Status.FALLBACK))
    kinds = ((as_decided, _IN_TIME, "in time"), (fell_back, _FALLBACK, "in time, by the\nlocal fallback"))
    for mine, colour, name in (*kinds, (_are(timeline, Status.LATE), _LATE, "late")):
        _scatter(axis, timeline, mine & timeline.answered & (timeline.latency_ms <= top), colour, name)
    beyond = timeline.t_s[timeline.answered & (timeline.latency_ms > top)]
    if len(beyond):
        axis.scatter(beyond, np.full(len(beyond), top), s=16, marker="^", color=_LATE, label="later than shown")
    axis.axhline(timeline.deadline_ms, color="black", linewidth=1, linestyle="--", label="deadline")
    axis.set_ylim(0, 1.03 * top)
    axis.set_ylabel("capture to answer, ms")
    _legend(axis, "answers")


def _latency_top(timeline: Timeline) -> float:
    """No higher than what is there, as far as it is not much later than the deadline."""
    slowest_ms = timeline.latency_ms[timeline.answered].max(initial=0.0)
    return float(np.clip(1.08 * slowest_ms, 1.1 * timeline.deadline_ms, _MOST_DEADLINES * timeline.deadline_ms))


def _scatter(axis: Any, timeline: Timeline, mine: Bools, colour: str, name: str) -> None:
    if mine.any():
        axis.scatter(timeline.t_s[mine], timeline.latency_ms[mine], s=9, color=colour, label=name)


def _draw_endings(axis: Any, timeline: Timeline) -> None:
    """A lane of strokes for each thing that can become of a frame."""
    late = _are(timeline, Status.LATE)
    lanes = {
        "in time": (_are(timeline, Status.OK), _IN_TIME),
        "in time, fallback": (_are(timeline, Status.FALLBACK), _FALLBACK),
        "reused": (np.isin(timeline.status, [STATUSES.index(s) for s in STATUSES if s.reused]), _SKIPPED),
        "late": (late & timeline.answered, _LATE),
        "no answer": (late & ~timeline.answered, _LATE),
        "dropped": (_are(timeline, Status.DROPPED), _DROPPED),
    }
    for height, (mine, colour) in enumerate(reversed(lanes.values())):
        axis.vlines(timeline.t_s[mine], height - 0.35, height + 0.35, color=colour, linewidth=1.2)
    names = [f"{name}: {mine.sum()}" for name, (mine, _) in lanes.items()]
    axis.set_yticks(range(len(lanes)), names[::-1], fontsize=_SMALL)
    axis.set_ylim(-0.6, len(lanes) - 0.4)
    axis.set_ylabel("frames")


def _are(timeline: Timeline, status: Status) -> Bools:
    return np.asarray(timeline.status == STATUSES.index(status))


def _legend(axis: Any, title: str) -> None:
    """Beside the axis, where it covers nothing."""
    if axis.get_legend_handles_labels()[0]:
        legend = axis.legend(loc="upper left", bbox_to_anchor=(1.0, 1.0), fontsize=_SMALL, title=title)
        legend.get_title().set_fontsize(_SMALL)


# All controllers --------------------------------------------------------------------------------------------

_SHARES = {
    "in time": ("in_time_frac", "tab:green"),
    "reused: not run, an earlier answer stands": ("reused_frac", "lightgray"),
    "late or never answered": ("late_frac", "tab:red"),
    "dropped: never started": ("dropped_frac", "black"),
}


def draw_comparison(controllers: Mapping[str, Any], title: str, path: Path) -> None:
    """Mean utility of each controller, and what became of its frames; ``controllers`` is the report's part."""
    names = sorted(controllers, key=lambda name: controllers[name]["utility"]["mean"] or 0.0)
    figure, (left, right) = _figure((12, 1.9 + 0.42 * len(names)), 1, [1], columns=2)
    figure.suptitle(title, fontsize=_NORMAL + 2)
    _draw_utilities(left, names, controllers)
    _draw_shares(right, names, controllers)
    save_figure(figure, path)


def _draw_utilities(axis: Any, names: Sequence[str], controllers: Mapping[str, Any]) -> None:
    found = [controllers[name]["utility"] for name in names]
    for height, (name, utility) in enumerate(zip(names, found, strict=True)):
        if utility["mean"] is None:
            continue
        colour = {LEARNED: "tab:red", BOUND: "tab:gray"}.get(name, "tab:blue")
        interval = utility["ci95"] or [utility["mean"]] * 2
        axis.plot(interval, [height, height], color=colour, linewidth=3, alpha=0.6)
        axis.plot(utility["mean"], height, "o", color=colour)
        axis.annotate(f"{utility['mean']:.3f}", (interval[1], height), (6, -3), "data", "offset points")
    axis.set_yticks(range(len(names)), names, fontsize=_NORMAL)
    axis.set_ylim(-0.6, len(names) - 0.4)
    low, high = axis.get_xlim()
    axis.set_xlim(low - 0.05 * (high - low), high + 0.2 * (high - low))  # room for the last annotation
    sure = any(utility["ci95"] is not None for utility in found)
    bars = "bars: 95 % interval of the mean" if sure else "one episode: no interval"
    axis.set_xlabel(
        f"utility per frame: score of answers in time and of reused ones\n(1 is perfect), less energy and drops; {bars}"
    )
    axis.grid(axis="x", alpha=0.3)


def _draw_shares(axis: Any, names: Sequence[str], controllers: Mapping[str, Any]) -> None:
    """Stacked bars: every frame is exactly one of these."""
    left = np.zeros(len(names))
    for what, (key, colour) in _SHARES.items():
        share = np.array([100 * (controllers[name][key]["mean"] or 0.0) for name in names])
        axis.barh(range(len(names)), share, left=left, color=colour, label=what, height=0.7)
        for height, (start, width) in enumerate(zip(left, share, strict=True)):
            if width >= 6:  # per cent; a number does not fit into less
                ink = "black" if colour == "lightgray" else "white"
                axis.text(
                    start + width / 2, height, f"{width:.0f}", ha="center", va="center", color=ink, fontsize=_SMALL
                )
        left += share
    axis.set_xlim(0, 100)
    axis.set_ylim(-0.6, len(names) - 0.4)
    axis.set_yticks([])
    axis.set_xlabel("what became of all frames, %")
    axis.legend(loc="upper center", bbox_to_anchor=(0.5, -0.12), ncols=2, fontsize=_SMALL, frameon=False)


# Files ------------------------------------------------------------------------------------------------------


def _figure(size: tuple[float, float], rows: int, heights: Sequence[float], columns: int = 1) -> tuple[Any, Any]:
    """A figure without any window system, and its axes in one row or column."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=size, layout="constrained")
    grid = {"height_ratios": heights}
    axes = figure.subplots(rows, columns, sharex="col" if rows > 1 else False, squeeze=False, gridspec_kw=grid)
    return figure, axes.ravel()


def save_figure(figure: Any, path: Path) -> None:
    """Write a figure as PNG, whole or not at all."""
    drawn = BytesIO()
    figure.savefig(drawn, format="png", dpi=110)
    write_whole(path, drawn.getvalue(), "the plot", "choose another --out", make_folder=True)
