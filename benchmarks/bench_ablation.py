"""What each part of the learning, and the split decisions, are worth: the training without, on held-out traces.

``python -m benchmarks.bench_ablation [--workload campus] [--traces DIR] [--seeds 5] [--jobs 2]`` tunes the classical
controllers on the training traces, trains every variant with every seed on the same traces, and plays all of them on
the same held-out episodes. Traces are split as by ``benchmarks.bench_learning``. PPO without a warm start gets
``--ppo-steps`` steps, the others ``--steps``.

The rows without splits have no decision that computes on both sides: the candidates are chosen anew from the others, in
training and on the held-out traces. Beside the policy there are two classical controllers, tuned anew. *less whole* is
the difference to the same learner or controller with all parts and all decisions; its negative is what the part is
worth.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from agents.compare.evaluation import Entrants, Runs, compare_in_twin
from agents.compare.report import Comparison
from agents.compare.spread import Spread
from agents.compare.traces import BUILTIN_TEST, BUILTIN_TRAIN
from agents.compare.tuning import TUNABLE
from agents.runs.run_folder import TrainingConfig
from agents.runs.run_lock import locked
from agents.scale.kept import kept_until_done
from agents.scale.runner import Runner, workers
from agents.training.ablations import ABLATIONS, NO_SPLIT, ablated
from benchmarks.bench_learning import HELD_OUT_FAMILIES, setups_of, trained, tuned, tunings_of
from controller.controllers.learned import FrozenPolicy
from controller.controllers.registry import CONTROLLER_NAMES, LEARNED
from controller.errors import MecpilotError
from controller.metrics import Frames, run_as
from controller.records import KINDS
from envs.setup import Setup
from runtime.files.tuning_file import Tunings, load_tunings
from runtime.observe.tables import table_console

FULL = "full"
#: The same learner or controller with all its parts and all decisions.
WHOLE = "whole"
#: Classical controllers that are also played without splits.
RULES = ("greedy", "expected-utility")


def main() -> None:
    options = _options()
    try:
        with workers(options.jobs, options.ray) as runner, locked(options.out, "benchmarking"):
            measure(options, runner)
    except MecpilotError as error:
        sys.exit(f"bench_ablation: {error}")


def measure(options: argparse.Namespace, runner: Runner) -> None:
    """Tune, train every variant, compare, and print the table."""
    console = table_console(wide=True)
    training, testing, learn = setups_of(options.workload, options.traces, HELD_OUT_FAMILIES)
    trained_on, sources = ([str(options.traces or name)] for name in (BUILTIN_TRAIN, BUILTIN_TEST))
    with kept_until_done(console.print, options.out / ".pieces") as kept:
        spread = Spread(runner, kept)
        tunings = tunings_of(options, training, trained_on, console, spread)
        policies = {variant: _policies(options, variant, training, learn, runner) for variant in options.variants}
        classical = Entrants(tuple(name for name in CONTROLLER_NAMES if name != LEARNED), (), tunings)
        base = compare_in_twin(testing, classical, sources, options.episodes, play_all=spread.play)
        splitless = setups_of(options.workload, options.traces, HELD_OUT_FAMILIES, without=("split",))

        def play(entrants: Entrants, without_split: bool) -> Runs:
            setup = splitless[1] if without_split else testing
            return compare_in_twin(setup, entrants, sources, options.episodes, play_all=spread.play).runs

        runs = {variant: play(Entrants((LEARNED,), found), variant == NO_SPLIT) for variant, found in policies.items()}
        whole = runs[FULL][LEARNED] if FULL in runs else None
        rows = [figures_of(variant, base, found[LEARNED], whole) for variant, found in runs.items()]
        if NO_SPLIT in options.variants:
            tunings = _tunings_without_split(options, splitless[0], trained_on, console, spread)
            rules = play(Entrants(RULES, (), tunings), True)
            rows += [figures_of(f"{NO_SPLIT}, {name}", base, rules[name], base.runs[name]) for name in RULES]
    (options.out / "ablation.json").write_text(json.dumps(rows, indent=1))
    console.print(table_of(rows, base))


def _tunings_without_split(
    options: argparse.Namespace, setup: Setup, sources: Sequence[str], console: Console, spread: Spread
) -> Tunings:
    """Of the classical controllers that are played without splits: as ``--tuning`` says, or tuned without splits."""
    if options.tuning:
        return load_tunings(options.workload, options.tuning)
    names = [name for name in RULES if name in TUNABLE]
    return tuned(setup, sources, options.out / f"{NO_SPLIT}-rules", console, spread, names).controllers


def _policies(
    options: argparse.Namespace, variant: str, setup: Setup, learn: Sequence[Path], runner: Runner
) -> list[FrozenPolicy]:
    """The policies of a variant, one per seed."""
    steps = options.ppo_steps if variant == "no-warm-start" else options.steps
    full = TrainingConfig(options.workload, steps, 0, tuple(map(str, learn)), scenario=setup.range)
    config = full if variant == FULL else ablated(full, variant)
    return [policy for _, policy in trained(config, options.seeds, options.out / variant, runner)]


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--workload", default="campus")
    parser.add_argument("--traces", type=Path, help="folder of families of traces; default: the built-in generator")
    parser.add_argument("--seeds", type=int, default=5, help="trainings of each variant")
    parser.add_argument("--steps", type=int, default=300_000)
    parser.add_argument("--ppo-steps", type=int, default=2_000_000, help="of PPO without a warm start")
    parser.add_argument("--episodes", type=int, default=10, help="scenarios per held-out trace")
    parser.add_argument("--tuning", type=Path, help="tunings to use; default: tune on the training traces")
    parser.add_argument("--jobs", type=int, help="processes side by side (default: one per core)")
    parser.add_argument("--ray", help="address of a Ray cluster, or local")
    parser.add_argument("--variants", nargs="*", default=[FULL, *ABLATIONS], choices=[FULL, *ABLATIONS])
    parser.add_argument("--out", type=Path, default=Path("runs/ablation"))
    return parser.parse_args()


def figures_of(
    variant: str, base: Comparison, frames: tuple[Frames, ...], whole: tuple[Frames, ...] | None
) -> dict[str, Any]:
    """The figures of one variant, beside the classical controllers; intervals are over seeds and episodes."""
    runs = {**base.runs, LEARNED: frames} | ({} if whole is None else {WHOLE: whole})
    comparison = replace(base, runs=runs, own=(WHOLE,))
    references = dict.fromkeys((comparison.classical[0], "greedy"))
    return {
        "variant": variant,
        **{metric: comparison.interval(LEARNED, metric).as_json() for metric in comparison.ranking_metrics},
        **{f"less {name}": comparison.difference(LEARNED, name).as_json() for name in references},
        f"less {WHOLE}": None if whole is None else comparison.difference(LEARNED, WHOLE).as_json(),
        "run_as": run_as(comparison.sums[LEARNED]),
        "gap_closed": None if comparison.gap is None else comparison.gap.as_json(),
        "per_seed": comparison.utility(LEARNED).mean(axis=1).tolist(),
    }


def table_of(rows: Sequence[dict[str, Any]], base: Comparison) -> Table:
    names = [name for name in rows[0] if name not in ("variant", "per_seed")]
    title = f"{base.workload}: {base.episodes} held-out episodes, best classical controller: {base.classical[0]}"
    table = Table(title=title)
    for heading in ("variant", *names):
        table.add_column(f"{' / '.join(KINDS)}, % of run" if heading == "run_as" else heading.replace("_", " "))
    for row in rows:
        table.add_row(row["variant"], *(_kinds(row[name]) if name == "run_as" else _text(row[name]) for name in names))
    return table


def _kinds(shares: dict[str, float] | None) -> str:
    """Shares of the kinds of decision, in per cent."""
    return "-" if shares is None else " / ".join(f"{100 * share:.1f}" for share in shares.values())


def _text(figure: dict[str, Any] | None) -> str:
    if figure is None or figure["ci95"] is None:
        return "-"
    low, high = figure["ci95"]
    return f"{figure['mean']:.4f} [{low:.4f}, {high:.4f}]"


if __name__ == "__main__":
    main()
