"""What each part of the learning is worth: the training without it, over several seeds, on held-out traces.

``python -m benchmarks.bench_ablation [--workload campus] [--traces DIR] [--seeds 5] [--jobs 2]`` tunes the classical
controllers on the training traces, trains every variant with every seed on the same traces, and plays all of them on
the same held-out episodes. Traces are split as by ``benchmarks.bench_learning``. PPO without a warm start gets
``--ppo-steps`` steps, the others ``--steps``.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any, NamedTuple

from rich.table import Table

from agents.compare.evaluation import Entrants, compare_in_twin
from agents.compare.report import Comparison
from agents.compare.traces import BUILTIN_TEST, BUILTIN_TRAIN
from agents.runs.export import export
from agents.runs.run_folder import RunFolder, TrainingConfig
from agents.training.ablations import ABLATIONS, ablated
from agents.training.training import Options, train
from benchmarks.bench_learning import HELD_OUT_FAMILIES, split_files, tuned
from controller.controllers.learned import FrozenPolicy
from controller.controllers.registry import CONTROLLER_NAMES, LEARNED
from envs.setup import Setup, open_setup, traces_of
from runtime.files.policy_file import load_policy
from runtime.observe.tables import table_console
from runtime.traces.load import load_traces

FULL = "full"


class Work(NamedTuple):
    """One training."""

    variant: str
    seed: int


class Trained(NamedTuple):
    """Its result."""

    work: Work
    policy: Path
    seconds: float  # of this process, compilation included


def main() -> None:
    options = _options()
    console = table_console(wide=True)
    learn, judge = split_files(options.traces, HELD_OUT_FAMILIES) if options.traces else ([], [])
    training = open_setup(options.workload, traces_of(learn, "train"), "validation")
    testing = open_setup(options.workload, load_traces(judge) if judge else traces_of([], "test"), "test")
    trained_on, sources = ([str(options.traces or name)] for name in (BUILTIN_TRAIN, BUILTIN_TEST))
    found = trained(options, learn)
    classical = tuple(name for name in CONTROLLER_NAMES if name != LEARNED)
    tunings = tuned(training, trained_on, options.out, console).controllers
    base = compare_in_twin(testing, Entrants(classical, (), tunings), sources, options.episodes)
    rows = []
    for variant in options.variants:
        policies = [load_policy(one.policy)[0] for one in found if one.work.variant == variant]
        seconds = [one.seconds for one in found if one.work.variant == variant]
        rows.append(_row(variant, _with(base, testing, policies, sources, options.episodes), seconds))
    (options.out / "ablation.json").write_text(json.dumps(rows, indent=1))
    console.print(_table(rows, base))


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--workload", default="campus")
    parser.add_argument("--traces", type=Path, help="folder of families of traces; default: the built-in generator")
    parser.add_argument("--seeds", type=int, default=5, help="trainings of each variant")
    parser.add_argument("--steps", type=int, default=300_000)
    parser.add_argument("--ppo-steps", type=int, default=2_000_000, help="of PPO without a warm start")
    parser.add_argument("--episodes", type=int, default=10, help="scenarios per held-out trace")
    parser.add_argument("--jobs", type=int, default=1, help="trainings at a time")
    parser.add_argument("--variants", nargs="*", default=[FULL, *ABLATIONS], choices=[FULL, *ABLATIONS])
    parser.add_argument("--out", type=Path, default=Path("runs/ablation"))
    return parser.parse_args()


def trained(options: argparse.Namespace, learn: Sequence[Path]) -> list[Trained]:
    """All trainings, ``options.jobs`` at a time."""
    work = [Work(variant, seed) for variant in options.variants for seed in range(options.seeds)]
    one = partial(_train, options, tuple(map(str, learn)))
    if options.jobs == 1:
        return [one(each) for each in work]
    with ProcessPoolExecutor(options.jobs, get_context("spawn")) as pool:
        return list(pool.map(one, work))


def _train(options: argparse.Namespace, traces: tuple[str, ...], work: Work) -> Trained:
    begin_s = time.process_time()
    run = RunFolder(options.out / options.workload / f"{work.variant}-{work.seed}")
    steps = options.ppo_steps if work.variant == "no-warm-start" else options.steps
    config = TrainingConfig(options.workload, steps, work.seed, traces)
    train(config if work.variant == FULL else ablated(config, work.variant), run, Options(overwrite=True))
    policy = run.root / "policy.safetensors"
    export(run, policy)
    return Trained(work, policy, time.process_time() - begin_s)


def _with(
    base: Comparison, testing: Setup, policies: Sequence[FrozenPolicy], sources: Sequence[str], episodes: int
) -> Comparison:
    """The comparison with these policies beside the classical controllers."""
    played = compare_in_twin(testing, Entrants((LEARNED,), policies), sources, episodes)
    return replace(base, runs={**base.runs, **played.runs})


def _row(variant: str, comparison: Comparison, seconds: Sequence[float]) -> dict[str, Any]:
    """The figures of one variant; intervals are over seeds and episodes."""
    references = dict.fromkeys((comparison.classical[0], "greedy"))
    return {
        "variant": variant,
        "utility": comparison.interval(LEARNED, "utility").as_json(),
        **{f"less {name}": comparison.difference(LEARNED, name).as_json() for name in references},
        "gap_closed": None if comparison.gap is None else comparison.gap.as_json(),
        "per_seed": comparison.utility(LEARNED).mean(axis=1).tolist(),
        "cpu_s": sum(seconds) / len(seconds),
    }


def _table(rows: Sequence[dict[str, Any]], base: Comparison) -> Table:
    names = [name for name in rows[0] if name.startswith("less ")]
    title = f"{base.workload}: {base.episodes} held-out episodes, best classical controller: {base.classical[0]}"
    table = Table(title=title)
    for heading in ("variant", "utility", *names, "gap closed", "CPU s"):
        table.add_column(heading)
    for row in rows:
        figures = [_text(row[name]) for name in ("utility", *names, "gap_closed")]
        table.add_row(row["variant"], *figures, f"{row['cpu_s']:.0f}")
    return table


def _text(figure: dict[str, Any] | None) -> str:
    if figure is None or figure["ci95"] is None:
        return "-"
    low, high = figure["ci95"]
    return f"{figure['mean']:.4f} [{low:.4f}, {high:.4f}]"


if __name__ == "__main__":
    main()
