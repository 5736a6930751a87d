"""Plays vision over a narrow uplink with real processes: what the best decision of each kind reaches.

``python -m benchmarks.bench_narrow [--uplink 16kbit] [--slowdown 70] [--deadline-ms 300] [--fps 10]``, on an otherwise
idle machine. All test frames are played in order. First the twin plays every legal decision, pinned for all frames, on
devices of several slowdowns. Then the best one of each kind runs live: a MEC process, this process as the device, an
emulated uplink that counts whole messages. The twin's figures stand beside the live ones. A frame without an answer in
time counts as missed, and a skipped frame counts with the answer that stands for it.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from rich import box
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from benchmarks.support.kinds import COLOURS, LOSSLESS_IMAGE, SPLIT, kind_of
from benchmarks.support.on_link import run_on_profile, scenario_of
from benchmarks.support.pinned import TERMS, Compared, Figures, compare, in_twin, whole_setup
from controller.costs import CostTable
from controller.records import NO_PAYLOAD, Decision
from envs.setup import Setup
from runtime.inference.segments import Segments
from runtime.inference.steady import steady_stream
from runtime.traces.load import read_trace

TARGET = 0.90
#: Devices that the twin plays besides the one that is asked for.
SLOWDOWNS = (20, 30, 40, 60, 80, 100, 125, 150, 200, 250)
#: Scores closer than this are equal: the decision with fewer bytes is taken.
SAME_SCORE = 0.001
_TIMED_FRAMES, _TIMED_ROUNDS = 8, 12
PARTS = ("resize", "network", "encoding")
_SPLIT_COLOURS = ("darkgreen", "limegreen", "olive")


def group_of(decision: Decision) -> str:
    """What competes for one place: a kind of decision, but each model of a split by itself."""
    kind = kind_of(decision)
    return decision.model if kind == SPLIT else kind


def best_of(costs: CostTable, figures: Sequence[Figures], key: Callable[[Decision], Any]) -> dict[Any, int]:
    """For each key of the decisions the row with the highest score; of equal ones that with the fewest bytes. Lossless
    images are left out."""
    best: dict[Any, int] = {}
    for row, decision in enumerate(costs.space.decisions):
        place = key(decision)
        if kind_of(decision) == LOSSLESS_IMAGE:
            continue
        if place not in best or _worth(figures[row]) > _worth(figures[best[place]]):
            best[place] = row
    return best


def _worth(figures: Figures) -> tuple[float, float]:
    return round(figures.score / SAME_SCORE), -figures.uplink_bytes_per_s


def twin_table(costs: CostTable, figures: Sequence[Figures], title: str) -> Table:
    """The best decision of each kind and stride in the twin; of splits, of each resolution too."""

    def key(d: Decision) -> tuple[Any, ...]:
        return group_of(d), d.resolution_px if kind_of(d) == SPLIT else 0, d.frame_stride

    table = _table(title, "decision, in the twin", ("score", "in time", "fallback", "bytes/s", "p50 ms", "p95 ms"))
    for row in (row for _, row in sorted(best_of(costs, figures, key).items())):
        f = figures[row]
        cells = f"{f.score:.3f}", f"{f.in_time_frac:.1%}", f"{f.fallback_frac:.1%}", f"{f.uplink_bytes_per_s:,.0f}"
        table.add_row(costs.space.decisions[row].label, *cells, _ms(f.p50_ms), _ms(f.p95_ms))
    return table


def sweep_table(sweep: Mapping[float, Mapping[str, float]], title: str) -> Table:
    """The highest score of each group for every slowdown of the device."""
    names = list(dict.fromkeys(name for best in sweep.values() for name in best))
    table = _table(f"{title}: highest score in the twin", "device slowdown", names)
    for slowdown, best in sweep.items():
        table.add_row(f"{slowdown:g}", *(f"{best[name]:.3f}" for name in names))
    return table


def live_table(compared: Sequence[Compared], title: str) -> Table:
    """The figures of real processes, and those of the twin."""
    table = _table(title, "decision, live / twin", ("score", "in time", "fallback", "bytes/s", "p50 ms", "p95 ms"))
    for c in compared:
        live, twin = c.live, c.twin
        table.add_row(
            c.decision.label,
            f"{live.score:.3f} / {twin.score:.3f}",
            f"{live.in_time_frac:.1%} / {twin.in_time_frac:.1%}",
            f"{live.fallback_frac:.1%} / {twin.fallback_frac:.1%}",
            f"{live.uplink_bytes_per_s:,.0f} / {twin.uplink_bytes_per_s:,.0f}",
            f"{_ms(live.p50_ms)} / {_ms(twin.p50_ms)}",
            f"{_ms(live.p95_ms)} / {_ms(twin.p95_ms)}",
        )
    return table


def breakdown_table(compared: Sequence[Compared], parts: Mapping[str, Mapping[str, float]]) -> Table:
    """Where the latency goes: medians in ms, and what the device does in its part."""
    table = _table("Medians in ms over frames that were answered as decided", "live / twin", (*TERMS, *PARTS))
    for c in compared:
        terms = [f"{_ms(c.live_ms[term])} / {_ms(c.twin_ms[term])}" for term in TERMS]
        table.add_row(c.decision.label, *terms, *(_ms(parts[c.decision.label][part]) for part in PARTS))
    return table


def _table(title: str, first: str, headings: Sequence[str]) -> Table:
    table = Table(first, title=title, box=box.MARKDOWN)
    for heading in headings:
        table.add_column(heading, justify="right")
    return table


def _ms(value: float) -> str:
    return "" if np.isnan(value) else f"{value:.0f}"


def head_parts_ms(setup: Setup, decision: Decision, slowdown: float) -> dict[str, float]:
    """The device's time for a decision by part, as on the emulated device: the profile's time, divided as the parts'
    times are here."""
    segments = Segments(setup.bundle, setup.bundle.work)
    images = [segments.workload.sample(index, setup.split)[0] for index in range(_TIMED_FRAMES)]
    sends = decision.payload != NO_PAYLOAD
    stream = steady_stream(setup.bundle, decision) if sends else None
    whole, computed, resized = [], [], []
    for image in images * _TIMED_ROUNDS:
        resized.append(_seconds(lambda image=image: segments.workload.resize(image, decision.resolution_px)))  # type: ignore[misc]
        whole.append(
            _seconds(
                lambda image=image: segments.head(image, decision, None, stream.encode if stream else None)  # type: ignore[misc]
            )
        )
        computed.append(
            _seconds(lambda image=image: segments.head_array(image, decision)) if sends else whole[-1]  # type: ignore[misc]
        )
    steps = np.diff([0.0, *(float(np.median(part[_TIMED_FRAMES:])) for part in (resized, computed, whole))])
    steps = np.maximum(steps, 0.0)
    head_ms = 1e3 * slowdown * float(setup.costs.head_s[setup.costs.space.index(decision)])
    return dict(zip(PARTS, (steps * head_ms / steps.sum()).tolist(), strict=True))


def _seconds(call: Callable[[], Any]) -> float:
    begin = time.thread_time()
    call()
    return time.thread_time() - begin


def draw(
    sweep: Mapping[float, Mapping[str, float]],
    compared: Sequence[Compared],
    slowdown: float,
    deadline_ms: float,
    title: str,
    path: Path,
) -> None:
    """Score over the slowdown in the twin, with the live figures as points; and where the latency goes live."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(13, 5.5), layout="constrained")
    left, right = figure.subplots(1, 2)
    names = list(dict.fromkeys(name for best in sweep.values() for name in best))
    colour = {name: COLOURS.get(name) or _SPLIT_COLOURS[k % len(_SPLIT_COLOURS)] for k, name in enumerate(names)}
    for name in names:
        left.plot(list(sweep), [best[name] for best in sweep.values()], color=colour[name], label=f"{name}, twin")
    for c in compared:
        left.plot(slowdown, c.live.score, "o", color=colour[group_of(c.decision)], markeredgecolor="black")
    left.plot([], [], "o", color="white", markeredgecolor="black", label="live")
    left.axhline(TARGET, color="black", linestyle=":", linewidth=1)
    left.set(xscale="log", xlabel="device slowdown", ylabel="score per frame, best pinned decision", ylim=(0, 1))
    left.set_xticks(list(sweep), [f"{value:g}" for value in sweep], fontsize=8)
    left.minorticks_off()
    left.legend(fontsize=8, loc="lower left")
    places, begin = np.arange(len(compared))[::-1], np.zeros(len(compared))
    for term in TERMS:
        lasts = np.nan_to_num([c.live_ms[term] for c in compared])
        right.barh(places, lasts, left=begin, label=term)
        begin += lasts
    right.axvline(deadline_ms, color="black", linestyle=":", label="deadline")
    right.set_yticks(places, [c.decision.label.replace(", exit", ",\nexit") for c in compared], fontsize=8)
    right.set_xlabel("ms live, medians over frames answered as decided")
    right.legend(fontsize=8)
    figure.suptitle(title)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=100)


def verdict(compared: Sequence[Compared]) -> list[str]:
    """Whether a split reaches the target, and how far the twin is from the live figures."""
    splits = [c for c in compared if kind_of(c.decision) == SPLIT]
    lines = []
    if splits:
        best = max(splits, key=lambda c: c.live.score)
        reached = "reached" if best.live.score >= TARGET else "MISSED"
        lines.append(f"best split live {best.live.score:.3f} ({best.decision.label}); target {TARGET:.2f}: {reached}")
    off = max(abs(c.live.score - c.twin.score) for c in compared)
    late = max(abs(c.live.in_time_frac - c.twin.in_time_frac) for c in compared)
    lines.append(f"twin against live: score off by {off:.3f} at most, share in time by {100 * late:.1f} points")
    return lines


def run(options: argparse.Namespace, profile: Path) -> None:
    """Choose in the twin, play live, print and draw."""
    console = Console(width=200)
    setup = whole_setup(options.bundle or options.workload, read_trace(options.uplink), profile)
    every = np.arange(len(setup.costs))
    title = f"{setup.workload}: uplink {options.uplink}, {options.fps:g} frames/s, deadline {options.deadline_ms:g} ms"
    at_device = f"{title}, device {options.slowdown:g} times slower"
    scenario = scenario_of(setup, options, options.slowdown)
    figures = in_twin(setup, scenario, every)
    console.print(twin_table(setup.costs, figures, at_device))
    sweep: dict[float, dict[str, float]] = {}
    for slowdown in sorted({*SLOWDOWNS, options.slowdown}):
        played = in_twin(setup, scenario_of(setup, options, slowdown), every)
        sweep[slowdown] = {k: played[row].score for k, row in sorted(best_of(setup.costs, played, group_of).items())}
    console.print(sweep_table(sweep, title))
    best = best_of(setup.costs, figures, group_of)
    rows = np.array(sorted(best.values(), key=lambda row: -figures[row].score))
    with Progress(console=Console(stderr=True)) as bar:
        task = bar.add_task("live", total=len(rows) * scenario.frames)
        compared = compare(setup, scenario, rows, lambda done: bar.advance(task, done))
    parts = {c.decision.label: head_parts_ms(setup, c.decision, options.slowdown) for c in compared}
    console.print(live_table(compared, at_device))
    console.print(breakdown_table(compared, parts))
    console.print("\n".join(verdict(compared)), highlight=False)
    draw(sweep, compared, options.slowdown, options.deadline_ms, title, options.plot)
    console.print(f"plot: {options.plot}", soft_wrap=True)
    if options.json:
        live = [c.plain() for c in compared]
        found = {"conditions": at_device, "by_slowdown": sweep, "compared": live, "head_parts_ms": parts}
        options.json.write_text(json.dumps(found, indent=1) + "\n")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--workload", default="campus")
    parser.add_argument("--bundle", help="a bundle's directory; default: the one shipped for the workload")
    parser.add_argument("--uplink", default="16kbit", help="a constant rate, or a file of a trace")
    parser.add_argument("--slowdown", type=float, default=70.0, help="device time / time on this machine")
    parser.add_argument("--deadline-ms", type=float, default=300.0)
    parser.add_argument("--fps", type=float, default=10.0)
    parser.add_argument("--rtt-ms", type=float, default=20.0, help="round trip without payload")
    parser.add_argument("--profile", type=Path, help="of this machine; default: measured now")
    parser.add_argument("--plot", type=Path, default=Path("runs/narrow/narrow.png"))
    parser.add_argument("--json", type=Path, help="write the figures here")
    return run_on_profile("bench_narrow", parser.parse_args(), run)


if __name__ == "__main__":
    sys.exit(main())
