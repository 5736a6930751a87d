"""Compares the device's energy per frame: the best device-only decision against decisions that score no less.

``python -m benchmarks.bench_energy [--slowdown 20] [--uplink 2mbit]`` plays every legal decision, pinned for all test
frames in order, in the twin. Energy is modelled from the device's busy time and the time that its radio sends
(``controller.utility``), above idle. For each kind it prints the decision with the least energy whose score is at least
that of the best device-only decision; and the decision with the highest score where no decision reaches that.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from rich import box
from rich.console import Console
from rich.table import Table

from benchmarks.bench_narrow import group_of, scenario_of
from benchmarks.support.kinds import DEVICE, SPLIT, kind_of
from benchmarks.support.machine_profile import machine_profile
from benchmarks.support.pinned import Figures, in_twin, whole_setup
from controller.costs import CostTable
from controller.errors import UsageError
from runtime.traces.load import read_trace

#: Energy of a split relative to device-only at no less score.
TARGET_RATIO = 0.5


def chosen(costs: CostTable, figures: Sequence[Figures]) -> dict[str, int]:
    """Per group the row with the least energy of those that score no less than the best device-only row; where there is
    none, the row with the highest score. Of device-only rows, the best one."""
    group = np.array([group_of(decision) for decision in costs.space.decisions])
    score, energy = np.array([f.score for f in figures]), np.array([f.energy_j for f in figures])
    level = score[group == DEVICE].max()
    found = {}
    for name in np.unique(group).tolist():
        rows = np.flatnonzero(group == name)
        good = rows[score[rows] >= level]
        found[name] = int(good[energy[good].argmin()] if len(good) else rows[score[rows].argmax()])
    return dict(sorted(found.items(), key=lambda pair: energy[pair[1]]))


def table_of(costs: CostTable, figures: Sequence[Figures], rows: dict[str, int], title: str) -> Table:
    """The figures of the chosen rows."""
    table = Table("decision", title=title, box=box.MARKDOWN)
    for heading in ("score", "energy, mJ per frame", "of device-only's", "in time", "bytes/s"):
        table.add_column(heading, justify="right")
    alone = figures[rows[DEVICE]].energy_j
    for row in rows.values():
        f = figures[row]
        ratio, sent = f"{f.energy_j / alone:.2f}", f"{f.uplink_bytes_per_s:,.0f}"
        table.add_row(
            costs.space.decisions[row].label,
            f"{f.score:.3f}",
            f"{1e3 * f.energy_j:.1f}",
            ratio,
            f"{f.in_time_frac:.1%}",
            sent,
        )
    return table


def verdict(costs: CostTable, figures: Sequence[Figures], rows: dict[str, int]) -> str:
    """Whether a split reaches the target."""
    alone = figures[rows[DEVICE]]
    splits = [figures[row] for row in rows.values() if kind_of(costs.space.decisions[row]) == SPLIT]
    good = [f.energy_j / alone.energy_j for f in splits if f.score >= alone.score]
    if not good:
        return f"no split reaches the score of the best device-only decision, {alone.score:.3f}: MISSED"
    reached = "reached" if min(good) <= TARGET_RATIO else "MISSED"
    return (
        f"least energy of a split at no less score: {min(good):.2f} of device-only's; target {TARGET_RATIO}: {reached}"
    )


def run(options: argparse.Namespace, profile: Path) -> None:
    """Play, choose and print."""
    setup = whole_setup(options.bundle or options.workload, read_trace(options.uplink), profile)
    scenario = scenario_of(setup, options, options.slowdown)
    figures = in_twin(setup, scenario, np.arange(len(setup.costs)))
    rows = chosen(setup.costs, figures)
    title = (
        f"{setup.workload}: device {options.slowdown:g} times slower, uplink {options.uplink}, "
        f"{options.fps:g} frames/s, deadline {options.deadline_ms:g} ms"
    )
    console = Console(width=180)
    console.print(table_of(setup.costs, figures, rows, title))
    console.print(verdict(setup.costs, figures, rows), highlight=False)
    if options.json:
        plain = {setup.costs.space.decisions[row].label: figures[row].plain() for row in rows.values()}
        options.json.write_text(json.dumps(plain, indent=1) + "\n")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--workload", default="campus")
    parser.add_argument("--bundle", help="a bundle's directory; default: the one shipped for the workload")
    parser.add_argument("--uplink", default="2mbit", help="a constant rate, or a file of a trace")
    parser.add_argument("--slowdown", type=float, default=20.0, help="device time / time on this machine")
    parser.add_argument("--deadline-ms", type=float, default=200.0)
    parser.add_argument("--fps", type=float, default=10.0)
    parser.add_argument("--rtt-ms", type=float, default=20.0, help="round trip without payload")
    parser.add_argument("--profile", type=Path, help="of this machine; default: measured now")
    parser.add_argument("--json", type=Path, help="write the figures here")
    options = parser.parse_args()
    torch.set_num_threads(1)
    with machine_profile(options.workload, options.profile) as profile:
        try:
            run(options, profile)
        except UsageError as error:
            print(f"bench_energy: {error}", file=sys.stderr)
            return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
