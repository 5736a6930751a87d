"""What gated early exits save: per gate, the share answered early, the score, bytes and energy, and how sure is sure.

``python -m benchmarks.bench_gate [--workload campus] [--slowdown 20] [--uplink 2mbit]``

1. Calibration: the error of every exit's confidence, before and after the fit, on the test split and on folds of
   consecutive samples of the validation split that were left out of the fit.
2. In the twin, every legal decision is pinned for all test frames. Of each kind (device-only, split) that has an exit
   on the way, the ungated decision that loses least utility is shown with every gate; then, for each gate, the best
   gated decision against the best ungated one. "Best" is chosen by utility on the validation split and judged on test.
3. With ``--live N`` the gated rows of the first table run once on N frames with real processes, beside the twin.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from rich import box
from rich.console import Console
from rich.table import Table

from agents.compare.evaluation import Entrants, compare_live
from benchmarks.support.on_link import run_on_profile, scenario_of
from benchmarks.support.pinned import Figures, figures_of, in_twin, whole_setup
from controller.controllers.simple import FixedRow
from controller.gates import calibrated
from controller.records import NO_PAYLOAD, Decision, Floats
from controller.scenario import Scenario
from envs.setup import Setup
from runtime.bundles.bundle import Bundle
from runtime.gating.calibration import Calibrations, calibration_error, fit
from runtime.traces.load import read_trace

GATES = (0.5, 0.7, 0.8, 0.9, 0.95, 0.97, 0.98, 0.99)
#: Largest calibration error that was asked for, and folds of the validation split.
TARGET, FOLDS = 0.02, 5
DEVICE, SPLIT = "device only", "split"


class ExitErrors(NamedTuple):
    """Calibration errors of one exit at one resolution."""

    raw: float  # test split, without the fit
    fitted: float  # test split
    folds: float  # validation split, each fold with the fit on the others


def exit_errors(bundle: Bundle) -> list[ExitErrors]:
    """Of every exit of a bundle, those without an exit after them included."""
    calibrations, test = Calibrations(bundle), bundle.recorded("test")
    found = []
    for model in bundle.manifest.models:
        for px in bundle.manifest.resolutions_of(model):
            for e in range(len(model.exits)):
                variant = calibrations.variant(model.name, px, e)
                confidence, score = test.confidence[variant], test.score[variant]
                sure = calibrated(confidence, *calibrations.of(model.name, px, e))
                known = calibrations.recorded.confidence[variant], calibrations.recorded.score[variant]
                errors = calibration_error(confidence, score), calibration_error(sure, score)
                found.append(ExitErrors(*errors, _held_out(*known)))
    return found


def _held_out(confidence: Floats, score: Floats) -> float:
    """Error on each fold of consecutive samples with the fit on all others."""
    fold, sure = np.arange(len(score)) * FOLDS // len(score), np.empty(len(score))
    for k in range(FOLDS):
        sure[fold == k] = calibrated(confidence[fold == k], *fit(confidence[fold != k], score[fold != k]))
    return calibration_error(sure, score)


def calibration_table(errors: Sequence[ExitErrors], title: str) -> Table:
    table = Table("calibration error", title=title, box=box.MARKDOWN)
    for heading in ("mean", "largest", f"exits at {TARGET:g} or less"):
        table.add_column(heading, justify="right")
    names = ("test, temperature alone", "test, after the fit", "validation, folds left out of the fit")
    for name, column in zip(names, np.array(errors).T, strict=True):
        within = f"{int((column <= TARGET).sum())} of {len(column)}"
        table.add_row(name, f"{column.mean():.3f}", f"{column.max():.3f}", within)
    return table


class Played(NamedTuple):
    """Every row of a setup, pinned."""

    setup: Setup
    figures: list[Figures]  # on the test split
    utility: Floats  # (C,) expected on the validation split, in the same conditions

    @property
    def decisions(self) -> tuple[Decision, ...]:
        return self.setup.costs.space.decisions

    def rows(self, kind: str, gate: float) -> list[int]:
        """Rows of a kind with that gate; 0: those without one for which there are gated ones."""
        gated = {d.ungated for d in self.decisions if d.gate}
        return [
            row
            for row, d in enumerate(self.decisions)
            if d.gate == gate and d.ungated in gated and (d.payload == NO_PAYLOAD) == (kind == DEVICE)
        ]

    def best(self, rows: Sequence[int]) -> int:
        """The row that earns most on the validation split."""
        return max(rows, key=lambda row: float(self.utility[row]))


def play_all(options: argparse.Namespace, profile: Path) -> Played:
    setup = whole_setup(options.bundle or options.workload, read_trace(options.uplink), profile, GATES)
    setup = replace(setup, costs=setup.costs.take(_worth_playing(setup, options.strides)))
    scenario, rows = scenario_of(setup, options, options.slowdown), np.arange(len(setup.costs))
    known = replace(setup, recorded=setup.bundle.recorded("validation"), split="validation")
    frames = min(setup.bundle.manifest.sample_counts["validation"], options.frames)
    validation = play_parts(known, replace(scenario, frames=frames), rows)
    return Played(setup, in_twin(setup, _short(scenario, options), rows), validation)


def _short(scenario: Scenario, options: argparse.Namespace) -> Scenario:
    return replace(scenario, frames=min(scenario.frames, options.frames))


def _worth_playing(setup: Setup, strides: bool) -> np.ndarray:
    """Rows without a stride (a gate is about one frame), lossless images left out."""
    decisions = setup.costs.space.decisions
    return np.flatnonzero([(strides or d.frame_stride == 1) and d.payload not in ("raw", "png") for d in decisions])


def play_parts(setup: Setup, scenario: Scenario, rows: np.ndarray) -> Floats:
    """(C,) mean utility per frame of each row."""
    found = [f.score - setup.range.utility.energy_weight_per_j * f.energy_j for f in in_twin(setup, scenario, rows)]
    return np.array(found)


HEADINGS = ("gate", "answered early", "score", "in time", "kbit/s", "mJ per frame", "p50 ms")


def _cells(gate: float, f: Figures) -> list[str]:
    kbit = 8e-3 * f.uplink_bytes_per_s
    name = f"{gate:g}" if gate else "none"
    shares = f"{100 * f.early_frac:.0f} %", f"{f.score:.4f}", f"{100 * f.in_time_frac:.1f} %"
    return [name, *shares, f"{kbit:.0f}", f"{1e3 * f.energy_j:.0f}", f"{f.p50_ms:.0f}"]


def gate_table(played: Played, row: int, title: str) -> Table:
    """One decision under every gate."""
    table = Table(title=title, box=box.MARKDOWN)
    for heading in HEADINGS:
        table.add_column(heading, justify="right")
    own = played.decisions[row]
    table.add_row(*_cells(0.0, played.figures[row]))
    for gate in GATES:
        table.add_row(*_cells(gate, played.figures[played.setup.costs.space.index(replace(own, gate=gate))]))
    return table


def best_table(played: Played, title: str) -> Table:
    """The best decision without a gate and with each."""
    table = Table("best decision on validation", *HEADINGS[1:], "utility", title=title, box=box.MARKDOWN)
    weight = played.setup.range.utility.energy_weight_per_j
    for gate in (0.0, *GATES):
        rows = [r for r, d in enumerate(played.decisions) if d.gate == gate]
        row = played.best(rows)
        f = played.figures[row]
        table.add_row(played.decisions[row].label, *_cells(gate, f)[1:], f"{f.score - weight * f.energy_j:.4f}")
    return table


def live_table(played: Played, options: argparse.Namespace, rows: Sequence[int]) -> Table:
    """The rows live beside the twin, on the first frames."""
    kept = np.unique(np.concatenate((np.array(rows), played.setup.costs.local_frontier)))
    kept = np.union1d(kept, [played.setup.costs.space.index(played.decisions[r].ungated) for r in rows])
    setup = replace(played.setup, costs=played.setup.costs.take(kept))
    scenario = replace(scenario_of(setup, options, options.slowdown), frames=options.live)
    places = np.searchsorted(kept, rows)
    makers: dict[str, Any] = {
        played.decisions[r].label: _maker(played.decisions[r].label, int(p)) for r, p in zip(rows, places, strict=True)
    }
    live, _ = compare_live(setup, Entrants((), own=makers), [setup.bank.traces[0].name], [scenario], lambda _: None)
    table = Table(
        "decision", "where", *HEADINGS[1:], title=f"{options.live} frames live and in the twin", box=box.MARKDOWN
    )
    for r, twin in zip(rows, in_twin(setup, scenario, places), strict=True):
        label = played.decisions[r].label
        table.add_row(label, "live", *_cells(0.0, figures_of(live.runs[label][0]))[1:])
        table.add_row("", "twin", *_cells(0.0, twin)[1:])
    return table


def _maker(name: str, row: int) -> Any:
    return lambda _: FixedRow(name, row)


def run(options: argparse.Namespace, profile: Path) -> None:
    """Play and print."""
    console = Console(width=200)
    played = play_all(options, profile)
    errors = exit_errors(played.setup.bundle)
    console.print(calibration_table(errors, f"{played.setup.workload}: calibration"))
    where = (
        f"{played.setup.workload}, device {options.slowdown:g} times slower, uplink {options.uplink}, "
        f"{options.fps:g} frames/s, deadline {options.deadline_ms:g} ms"
    )
    shown = []
    for kind in (DEVICE, SPLIT):
        rows = played.rows(kind, 0.0)
        if rows:
            row = played.best(rows)
            shown.append(row)
            console.print(gate_table(played, row, f"{where}: {played.decisions[row].label}"))
    console.print(best_table(played, f"{where}: the best decision per gate"))
    if options.live:
        index = played.setup.costs.space.index
        rows = [index(replace(played.decisions[row], gate=gate)) for row in shown for gate in (0.0, options.live_gate)]
        console.print(live_table(played, options, rows))
    if options.json:
        plain = [
            {"decision": d.label, "utility_on_validation": float(u)} | f.plain()
            for d, u, f in zip(played.decisions, played.utility, played.figures, strict=True)
        ]
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
    parser.add_argument("--frames", type=int, default=2000, help="of each split at most")
    parser.add_argument("--strides", action="store_true", help="play decisions with a frame stride, too")
    parser.add_argument("--live", type=int, default=0, help="frames to play with real processes; 0: none")
    parser.add_argument("--live-gate", type=float, default=0.9, choices=GATES)
    parser.add_argument("--profile", type=Path, help="of this machine; default: measured now")
    parser.add_argument("--json", type=Path, help="write the figures here")
    return run_on_profile("bench_gate", parser.parse_args(), run)


if __name__ == "__main__":
    sys.exit(main())
