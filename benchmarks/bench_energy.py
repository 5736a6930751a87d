"""Compares the device's energy per frame at equal score: device-only decisions against those that ask the MEC.

``python -m benchmarks.bench_energy [--slowdown 20] [--uplink 2mbit]`` plays every legal decision, pinned for all test
frames in order, in the twin. Energy is modelled from the device's busy time and the time that its radio sends
(``controller.utility``), above idle. A row of the table is a device-only decision that none beats in energy and score;
beside it stands the least energy of each other kind at no less score, also relative to device-only.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from rich import box
from rich.console import Console
from rich.table import Table

from benchmarks.support.kinds import DEVICE, LOSSY_KINDS, SPLIT, kind_of
from benchmarks.support.on_link import run_on_profile, scenario_of
from benchmarks.support.pinned import Figures, in_twin, whole_setup
from controller.costs import CostTable
from runtime.traces.load import read_trace

#: Energy of a split relative to device-only at no less score.
TARGET_RATIO = 0.5
#: Device-only decisions of less score are left out.
LEAST_SCORE = 0.9


class Energies:
    """Score and energy of every decision, by kind."""

    def __init__(self, costs: CostTable, figures: Sequence[Figures]) -> None:
        self.decisions = costs.space.decisions
        self.kind = np.array([kind_of(decision) for decision in self.decisions])
        self.score = np.array([f.score for f in figures])
        self.energy_j = np.array([f.energy_j for f in figures])

    def alone(self) -> list[int]:
        """Device-only rows that none beats in energy and score, the cheapest first; the best one at least."""
        rows = np.flatnonzero(self.kind == DEVICE)
        rows = rows[np.lexsort((-self.score[rows], self.energy_j[rows]))]
        best = [int(row) for k, row in enumerate(rows) if self.score[row] > self.score[rows[:k]].max(initial=-1.0)]
        return [row for row in best if self.score[row] >= LEAST_SCORE] or best[-1:]

    def least(self, kind: str, score: float) -> int | None:
        """The row of a kind with the least energy that reaches a score; None if none does."""
        rows = np.flatnonzero((self.kind == kind) & (self.score >= score))
        return int(rows[self.energy_j[rows].argmin()]) if len(rows) else None

    def ratio(self, row: int, kind: str) -> float | None:
        """Least energy of a kind at no less score than a row, relative to that row."""
        other = self.least(kind, self.score[row])
        return None if other is None else float(self.energy_j[other] / self.energy_j[row])


def table_of(found: Energies, title: str) -> Table:
    """Least energy per frame of each kind at the scores of device-only decisions."""
    table = Table(DEVICE, title=f"{title}: mJ per frame", box=box.MARKDOWN)
    for heading in ("score", "mJ", *LOSSY_KINDS, "best split"):
        table.add_column(heading, justify="right")
    for row in found.alone():
        split = found.least(SPLIT, found.score[row])
        cells = [_cell(found, row, kind) for kind in LOSSY_KINDS]
        name = "" if split is None else f"{found.decisions[split].label} ({found.score[split]:.3f})"
        alone = f"{found.score[row]:.3f}", f"{1e3 * found.energy_j[row]:.0f}"
        table.add_row(found.decisions[row].label.removesuffix(", device only"), *alone, *cells, name)
    return table


def _cell(found: Energies, row: int, kind: str) -> str:
    ratio = found.ratio(row, kind)
    return "" if ratio is None else f"{1e3 * ratio * found.energy_j[row]:.0f} ({ratio:.2f})"


def verdict(found: Energies) -> str:
    """Whether splits reach the target at every score that device-only reaches."""
    ratios = [found.ratio(row, SPLIT) for row in found.alone()]
    known = [ratio for ratio in ratios if ratio is not None]
    if len(known) < len(ratios):
        return f"no split reaches {found.score[found.alone()[-1]]:.3f}, the best score of device-only: MISSED"
    reached = "reached" if max(known) <= TARGET_RATIO else "MISSED"
    return (
        f"energy of splits / device-only at no less score: {max(known):.2f} at most; target {TARGET_RATIO}: {reached}"
    )


def run(options: argparse.Namespace, profile: Path) -> None:
    """Play and print."""
    setup = whole_setup(options.bundle or options.workload, read_trace(options.uplink), profile)
    scenario = scenario_of(setup, options, options.slowdown)
    figures = in_twin(setup, scenario, np.arange(len(setup.costs)))
    found = Energies(setup.costs, figures)
    title = (
        f"{setup.workload}: device {options.slowdown:g} times slower, uplink {options.uplink}, "
        f"{options.fps:g} frames/s, deadline {options.deadline_ms:g} ms"
    )
    console = Console(width=220)
    console.print(table_of(found, title))
    console.print(verdict(found), highlight=False)
    if options.json:
        plain = [{"decision": found.decisions[row].label} | figures[row].plain() for row in range(len(figures))]
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
    return run_on_profile("bench_energy", parser.parse_args(), run)


if __name__ == "__main__":
    sys.exit(main())
