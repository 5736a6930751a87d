"""Compares PPO with every classical controller on held-out traces.

``python -m benchmarks.bench_learning`` tunes every classical controller on the training traces, trains one policy per
seed on the same traces, and compares all of them on held-out traces: paired scenarios, 95 % bootstrap intervals over
policies and episodes, share of the gap to greedy-oracle that is closed.

Without ``--traces`` the built-in generator provides all traces; the test traces include families that the training
traces lack. With ``--traces DIR`` (a folder per family) the files are split: those of the families in ``--hold-out``,
and one third of the others, are used for evaluation only.
"""

from __future__ import annotations

import argparse
import hashlib
import itertools
import json
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table

from agents.compare.best_offload import BEST_OFFLOAD, best_offload
from agents.compare.bound import bounds_of
from agents.compare.evaluation import Entrants, compare_in_twin
from agents.compare.plots import draw_comparison
from agents.compare.report import Comparison, as_json, verdict
from agents.compare.rollout import paired_scenarios
from agents.compare.spread import Spread
from agents.compare.tables import margin_table, tables
from agents.compare.traces import BUILTIN_TEST, BUILTIN_TRAIN, family
from agents.compare.tuning import TUNABLE, score_here, tune_controllers
from agents.runs.export import export
from agents.runs.run_folder import RunFolder, TrainingConfig
from agents.runs.run_lock import locked
from agents.scale.kept import kept_until_done
from agents.scale.runner import Here, Runner, workers
from agents.training.seeds import train_seeds
from agents.training.training import Options
from controller.controllers.learned import FrozenPolicy
from controller.controllers.registry import CONTROLLER_NAMES, LEARNED
from controller.errors import MecpilotError
from controller.predict.uplink import Trace, TraceBank
from envs.setup import Setup, open_setup, traces_of
from runtime.files.policy_file import load_policy
from runtime.files.tuning_file import TuningFile, Tunings, load_tunings, save_tunings
from runtime.observe.tables import table_console
from runtime.traces.load import load_traces

#: Held-out families of the shared collection: a moving 5G link, a 3G network, a satellite.
HELD_OUT_FAMILIES = ("vz_mmwave_up", "norway3g", "starlink_up")
#: One in this many files of the other families is held out.
HELD_OUT_SHARE = 3
#: Most files of one family on either side, so that a large collection of one kind of link does not dominate.
MOST_PER_FAMILY = 16
#: References of the table per trace family.
MARGINS = (BEST_OFFLOAD, "device-only")
#: Bounds of the groups by device slowdown.
SLOWDOWNS = (0.0, 30.0, 100.0, 200.0, np.inf)


def split_files(directory: Path, held_out: Sequence[str]) -> tuple[list[Path], list[Path]]:
    """Training files and evaluation files."""
    learn, judge = [], []
    for path in sorted(directory.rglob("*.csv")):
        only_judge = path.parent.name.removesuffix("_100ms") in held_out
        digest = hashlib.sha256(_same_ride(path).encode()).digest()[0]
        (judge if only_judge or digest % HELD_OUT_SHARE == 0 else learn).append(path)
    return _balanced(learn), _balanced(judge)


def _balanced(paths: Sequence[Path]) -> list[Path]:
    """At most MOST_PER_FAMILY files of each folder, evenly spread over it."""
    folders = sorted({path.parent for path in paths})
    return [path for folder in folders for path in _spread([p for p in paths if p.parent == folder])]


def _spread(paths: Sequence[Path]) -> list[Path]:
    count = min(len(paths), MOST_PER_FAMILY)
    return [paths[i * len(paths) // count] for i in range(count)]


def _same_ride(path: Path) -> str:
    """Key of a measured ride: files of one ride, sampled at two rates, go to the same side."""
    return path.parent.name.removesuffix("_100ms") + "/" + path.stem.removesuffix("_100ms")


def train_policies(
    setup: Setup,
    learn: Sequence[Path],
    seeds: int,
    steps: int,
    folder: Path,
    console: Console,
    profile: Path | None = None,
    runner: Runner | None = None,
) -> list[FrozenPolicy]:
    """One policy per seed, each trained by the same code as ``mecpilot train``."""
    begin_s = time.monotonic()
    config = TrainingConfig(setup.workload, steps, 0, tuple(map(str, learn)), scenario=setup.range)
    found = trained(config, seeds, folder, runner or Here(), profile)
    console.print(f"{seeds} trainings of {steps} steps in {time.monotonic() - begin_s:.0f} s")
    for run, _ in found:
        console.print(f"{run.root.name}: held out {run.held_out()}")
    return [policy for _, policy in found]


def trained(
    config: TrainingConfig, seeds: int, folder: Path, runner: Runner, profile: Path | None = None
) -> list[tuple[RunFolder, FrozenPolicy]]:
    """The runs of a training with so many seeds, and their policies; a finished run of the same training is used
    again."""
    runs = train_seeds(config, range(seeds), folder, Options(profile, overwrite=True), runner)
    return [(run, exported(run)) for run in runs]


def exported(run: RunFolder) -> FrozenPolicy:
    """The policy of a run, which is written beside it."""
    file = run.root / "policy.safetensors"
    export(run, file)
    return load_policy(file)[0]


def setups_of(
    workload: str, traces: Path | None, hold_out: Sequence[str], without: Sequence[str] = ()
) -> tuple[Setup, Setup, list[Path]]:
    """To train on, to judge on, and the files of the first; built-in traces unless a folder is given.

    ``without``: techniques and kinds of decision that the candidates of both lack.
    """
    learn, judge = split_files(traces, hold_out) if traces else ([], [])
    training = open_setup(workload, traces_of(learn, "train"), "validation", without=without)
    testing = open_setup(workload, load_traces(judge) if judge else traces_of([], "test"), "test", without=without)
    return training, testing, learn


def tunings_of(
    options: argparse.Namespace, setup: Setup, sources: Sequence[str], console: Console, spread: Spread
) -> Tunings:
    """The classical controllers as ``--tuning`` says, or tuned on the training traces."""
    if options.tuning:
        return load_tunings(options.workload, options.tuning)
    return tuned(setup, sources, options.out, console, spread).controllers


def tuned(
    setup: Setup,
    sources: Sequence[str],
    folder: Path,
    console: Console,
    spread: Spread | None = None,
    names: Sequence[str] = TUNABLE,
) -> TuningFile:
    """The named classical controllers, tuned on the training traces."""
    begin_s = time.monotonic()
    found = tune_controllers(setup, names, sources, score_all=spread.score if spread else score_here)
    save_tunings(folder / "tuning.json", found)
    console.print(f"tuned {len(found.controllers)} controllers in {time.monotonic() - begin_s:.0f} s")
    return found


def _against_offload(setup: Setup, comparison: Comparison) -> Comparison:
    """The policies, device-only, and the best fixed offload of each scenario, over the same episodes."""
    runs = {name: comparison.runs[name] for name in (LEARNED, "device-only")}
    scenarios = paired_scenarios(setup, range(comparison.seeds))
    return replace(comparison, runs={**runs, BEST_OFFLOAD: (best_offload(setup, scenarios),)})


def _by_slowdown(setup: Setup, comparison: Comparison) -> Table:
    """The policies against the best classical controllers, per group of device slowdowns."""
    slowdown = np.array([scenario.device_slowdown for scenario in paired_scenarios(setup, range(comparison.seeds))])
    groups = {f"{a:g} to {b:g}": (slowdown >= a) & (slowdown < b) for a, b in itertools.pairwise(SLOWDOWNS)}
    best = dict.fromkeys(comparison.classical_by(metric)[0] for metric in comparison.ranking_metrics)
    return margin_table(comparison, [*best, "device-only"], "device slowdown", groups)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--workload", default="garments")
    parser.add_argument("--traces", type=Path, help="folder of families of traces; default: the built-in generator")
    parser.add_argument("--hold-out", nargs="*", default=HELD_OUT_FAMILIES, help="families for evaluation only")
    parser.add_argument("--policies", type=int, default=5, help="training seeds")
    parser.add_argument("--steps", type=int, default=300_000)
    parser.add_argument("--seeds", type=int, default=10, help="scenarios per held-out trace")
    parser.add_argument("--out", type=Path, default=Path("runs/learning"))
    parser.add_argument("--tuning", type=Path, help="tunings to use; default: tune on the training traces")
    parser.add_argument("--bound", action="store_true", help="search for the best that could have been done, too")
    parser.add_argument("--jobs", type=int, help="processes side by side (default: one per core)")
    parser.add_argument("--ray", help="address of a Ray cluster, or local")
    options = parser.parse_args()
    try:
        with workers(options.jobs, options.ray) as runner, locked(options.out, "benchmarking"):
            sys.exit(measure(options, runner))
    except MecpilotError as error:
        sys.exit(f"bench_learning: {error}")


def measure(options: argparse.Namespace, runner: Runner) -> int:
    """Tune, train and compare; 0 if the policies are better than every classical controller."""
    console = table_console(wide=True)
    training, testing, learn = setups_of(options.workload, options.traces, options.hold_out)
    trained_on, sources = ([str(options.traces or name)] for name in (BUILTIN_TRAIN, BUILTIN_TEST))
    _print_split(console, training.bank, testing.bank)
    with kept_until_done(console.print, options.out / ".pieces") as kept:
        spread = Spread(runner, kept)
        tunings = tunings_of(options, training, trained_on, console, spread)
        policies = train_policies(training, learn, options.policies, options.steps, options.out, console, runner=runner)
        bounds = bounds_of(testing) if options.bound else ()
        entrants = Entrants(CONTROLLER_NAMES, policies, tunings, bounds=bounds)
        comparison = compare_in_twin(testing, entrants, sources, options.seeds, play_all=spread.play)
    report = as_json(comparison)
    (options.out / "evaluation.json").write_text(json.dumps(report, indent=1))
    draw_comparison(report["controllers"], f"{options.workload}, {sources[0]}", options.out / "compared.png")
    for table in tables(comparison, report, wide=True):
        console.print(table)
    console.print(margin_table(_against_offload(testing, comparison), MARGINS))
    console.print(_by_slowdown(testing, comparison))
    console.print("utility per policy:", ", ".join(f"{mean:.4f}" for mean in report["ppo_per_policy"]))
    console.print(verdict(comparison), soft_wrap=True)
    best = [comparison.difference(LEARNED, comparison.classical_by(m)[0], m) for m in comparison.ranking_metrics]
    return 0 if all(gain.low > 0 for gain in best) else 1


def _print_split(console: Console, learn: TraceBank, judge: TraceBank) -> None:
    def kinds(traces: Sequence[Trace]) -> set[str]:
        return {family(trace) for trace in traces}

    new = sorted(kinds(judge.traces) - kinds(learn.traces))
    console.print(f"{len(learn)} training traces, {len(judge)} held-out traces; new families: {', '.join(new)}")


if __name__ == "__main__":
    main()
