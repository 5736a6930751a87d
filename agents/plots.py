"""What does a controller do, and who is ahead? Two kinds of pictures, written as PNG.

``timeline`` shows one episode: the bandwidth, what was decided, and latency against the deadline. ``comparison`` shows
the mean utility of every controller with its interval.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from agents.report import BOUND, LEARNED
from controller.errors import FailureError
from controller.records import Bools, Decision, Floats, Ints
from controller.space import NO_PAYLOAD

#: Decisions named on the axis; the rarest ones share a line.
MAX_DECISIONS = 12
_COLOURS = {"device": "tab:blue", "split": "tab:green", "MEC": "tab:orange"}


@dataclass(frozen=True)
class Timeline:
    """One episode of one controller; (N,) per frame unless said otherwise."""

    controller: str
    trace: str
    t_s: Floats  # capture
    uplink_mbps: Floats  # what this device gets at capture
    deadline_ms: float
    latency_ms: Floats  # not finite where there was no answer
    on_time: Bools
    fallback: Bools  # answered by the local fallback
    row: Ints  # of ``decisions``; -1 for a dropped frame
    decisions: tuple[Decision, ...]


def side(decision: Decision) -> str:
    """Where a decision computes: on the device, on the MEC or on both."""
    if decision.payload == NO_PAYLOAD:
        return "device"
    return "split" if decision.partition_point else "MEC"


def label(decision: Decision) -> str:
    """Short name of a decision."""
    d = decision
    where = "" if d.payload == NO_PAYLOAD else f" cut {d.partition_point} {d.payload}"
    every = "" if d.frame_interval == 1 else f" every {d.frame_interval}"
    return f"{d.model} {d.resolution_px}px exit {d.exit_branch}{where}{every}"


def draw_timeline(timeline: Timeline, path: Path) -> None:
    """Bandwidth, decisions, and latency against the deadline of one episode."""
    from matplotlib.ticker import NullFormatter

    figure, axes = _figure(3, (11, 8), [1, 2, 2])
    top, middle, bottom = axes
    top.step(timeline.t_s, timeline.uplink_mbps, where="post", color="tab:gray", linewidth=1)
    top.set_yscale("log")
    top.yaxis.set_major_formatter("{x:g}")
    narrow = timeline.uplink_mbps.max() < 4 * timeline.uplink_mbps.min()
    top.yaxis.set_minor_formatter("{x:g}" if narrow else NullFormatter())
    top.set_ylabel("uplink Mbit/s")
    top.set_title(f"{timeline.controller} on {timeline.trace}")
    _draw_decisions(middle, timeline)
    _draw_latency(bottom, timeline)
    _save(figure, path)


def _draw_decisions(axis: Any, timeline: Timeline) -> None:
    rows, counts = np.unique(timeline.row[timeline.row >= 0], return_counts=True)
    named = sorted(rows[np.argsort(-counts)][:MAX_DECISIONS])
    place = {int(row): height for height, row in enumerate(named, start=1)}
    height = np.array([place.get(int(row), 0) for row in timeline.row])
    for where, colour in _COLOURS.items():
        mine = np.array([row >= 0 and side(timeline.decisions[row]) == where for row in timeline.row])
        axis.scatter(timeline.t_s[mine], height[mine], s=7, color=colour, label=where)
    names = {height: label(timeline.decisions[row]) for row, height in place.items()}
    if len(rows) > len(named):
        names[0] = "others"
    axis.set_yticks(list(names), list(names.values()), fontsize=7)
    axis.margins(y=0.15)
    _legend(axis)


def _draw_latency(axis: Any, timeline: Timeline) -> None:
    known = np.isfinite(timeline.latency_ms)
    as_decided = timeline.on_time & ~timeline.fallback
    kinds = ((as_decided, "tab:green", "on time"), (timeline.fallback, "tab:olive", "fallback"))
    for mine, colour, name in (*kinds, (~timeline.on_time, "tab:red", "late")):
        axis.scatter(timeline.t_s[known & mine], timeline.latency_ms[known & mine], s=7, color=colour, label=name)
    skipped = timeline.t_s[~known & timeline.on_time]  # in time without a latency: the answer was there before
    if len(skipped):
        axis.scatter(skipped, np.zeros(len(skipped)), s=7, marker="|", color="tab:gray", label="skipped")
    lost = timeline.t_s[~known & ~timeline.on_time]
    axis.scatter(lost, np.full(len(lost), 2 * timeline.deadline_ms), s=14, marker="x", color="black", label="no answer")
    axis.axhline(timeline.deadline_ms, color="black", linewidth=0.8, linestyle="--", label="deadline")
    axis.set_ylim(0, 2.2 * timeline.deadline_ms)
    axis.set_ylabel("latency ms")
    axis.set_xlabel("s")
    _legend(axis)


def _legend(axis: Any) -> None:
    """Beside the axis, where it covers nothing."""
    axis.legend(loc="upper left", bbox_to_anchor=(1.0, 1.0), fontsize=7)


def draw_comparison(controllers: Mapping[str, Any], title: str, path: Path) -> None:
    """Mean utility with interval and deadline met of each controller; ``controllers`` is the report's part."""
    names = sorted(controllers, key=lambda name: controllers[name]["utility"]["mean"])
    figure, axes = _figure(1, (9, 0.6 + 0.42 * len(names)), [1])
    axis = axes[0]
    for height, name in enumerate(names):
        utility = controllers[name]["utility"]
        low, high = utility["ci95"]
        colour = {LEARNED: "tab:red", BOUND: "tab:gray"}.get(name, "tab:blue")
        axis.plot([low, high], [height, height], color=colour, linewidth=3, alpha=0.6)
        axis.plot(utility["mean"], height, "o", color=colour)
        met = 100 * controllers[name]["slo_attainment"]["mean"]
        axis.annotate(f"{utility['mean']:.4f}, {met:.1f} % in time", (high, height), (6, -3), "data", "offset points")
    axis.set_yticks(range(len(names)), names)
    left, right = axis.get_xlim()
    axis.set_xlim(left, right + 0.3 * (right - left))  # room for the last annotation
    axis.set_xlabel("utility per frame, 95 % interval")
    axis.set_title(title)
    _save(figure, path)


def _figure(rows: int, size: tuple[float, float], heights: Sequence[int]) -> tuple[Any, Any]:
    """A figure without any window system."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=size, layout="constrained")
    axes = figure.subplots(rows, 1, sharex=rows > 1, squeeze=False, gridspec_kw={"height_ratios": heights})
    return figure, axes[:, 0]


def _save(figure: Any, path: Path) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path, dpi=110)
    except OSError as error:
        raise FailureError(f"cannot write the plot {path}: {error.strerror}; choose another --out") from error
