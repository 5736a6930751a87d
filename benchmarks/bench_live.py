"""Compares the ranking of controllers with real processes to their ranking in the twin.

``python -m benchmarks.bench_live [--traces DIR] [--scenarios 5] [--frames 600]``, on an otherwise idle machine:

1. Profile the machine, tune the classical controllers, and train a policy on the training traces (or use given ones:
   ``--policy FILE --tuning FILE``). Device slowdowns are converted so that devices are as slow as on the machine of the
   shipped profile; MECs are at least ``MEC_SLOWDOWN`` times slower than this machine.
2. Play the scenarios of ``mecpilot evaluate`` on all held-out traces in the twin.
3. Choose a few scenarios that represent all of them: every controller's mean over these few is close to its mean over
   all. Real time is too expensive for all, and random ones would not be representative.
4. Play these live: a MEC process, other devices that load it, a device that really computes, an emulated uplink.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from dataclasses import replace
from itertools import combinations
from pathlib import Path

import numpy as np
import torch
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from agents.compare.evaluation import Entrants, chosen_names, compare_live, default_seeds, entrants_of, play_in_twin
from agents.compare.report import UTILITY, Comparison, as_json
from agents.compare.rollout import on_trace, paired_scenarios
from agents.compare.traces import BUILTIN_TEST, BUILTIN_TRAIN
from benchmarks.bench_learning import train_policies, tuned
from benchmarks.support.machine_profile import machine_profile
from benchmarks.support.mec_slowdown import MEC_SLOWDOWN
from controller.errors import UsageError
from controller.metrics import known
from controller.records import Floats, Ints
from controller.scenario import Scenario, ScenarioRange
from envs.setup import Setup, open_setup, traces_of
from runtime.observe.summary import percent
from runtime.profiling.profile import shipped_slowdown

CONTROLLERS = "ppo,greedy,edgent,edgent-dynamic,jpeg-offload,device-only"
#: Number of random sets that the search for representative scenarios starts from.
STARTS = 1000
STEPS = 300_000
#: Controllers closer than this count as equal in the ranking.
SAME = 0.01


def ranking(comparison: Comparison, metric: str) -> dict[str, float]:
    """Means by controller, the best first."""
    means = {name: float(found[metric].mean()) for name, found in comparison.metrics.items()}
    return dict(sorted(means.items(), key=lambda pair: -pair[1]))


def swapped(live: Comparison, twin: Comparison, metric: str) -> list[str]:
    """Pairs of controllers that rank differently, by more than SAME on both sides."""
    one, other = ranking(live, metric), ranking(twin, metric)
    pairs = [(a, b, one[a] - one[b], other[a] - other[b]) for a, b in combinations(one, 2)]
    return [f"{a} and {b}" for a, b, x, y in pairs if x * y < 0 and min(abs(x), abs(y)) > SAME]


def representative(twin: Comparison, scenarios: Sequence[Scenario], count: int) -> list[Scenario]:
    """``count`` scenarios on different traces whose means in the twin are closest to the means over all scenarios.

    All ranking metrics and all controllers count. A local search exchanges one scenario at a time.
    """
    played = np.stack([found[metric].mean(0) for found in twin.metrics.values() for metric in twin.ranking_metrics])
    trace = np.array([scenario.trace_index for scenario in scenarios])
    rng = np.random.default_rng(0)
    sets = [_nearest(played - played.mean(axis=1, keepdims=True), trace, count, rng) for _ in range(STARTS)]
    return [scenarios[i] for i in sorted(min(sets)[1])]


def _nearest(off: Floats, trace: Ints, count: int, rng: np.random.Generator) -> tuple[float, list[int]]:
    """From a random set, exchange scenarios while that brings the mean of ``off`` (metrics, scenarios) closer to 0.

    Returns the squared distance and the numbers of the chosen scenarios.
    """
    shuffled = rng.permutation(len(trace))
    chosen = shuffled[np.unique(trace[shuffled], return_index=True)[1]]
    chosen = rng.permutation(chosen)[:count]
    distance = np.inf
    while True:
        same_trace = trace[chosen][:, None] == trace  # (count, scenarios)
        taken = same_trace.sum(axis=0) - same_trace > 0
        total = off[:, chosen].sum(axis=1)[:, None, None] - off[:, chosen, None] + off[:, None, :]
        distances = np.where(taken, np.inf, np.square(total / count).sum(axis=0))
        place, scenario = np.unravel_index(distances.argmin(), distances.shape)
        if distances[place, scenario] >= distance:
            return distance, chosen.tolist()
        distance = float(distances[place, scenario])
        chosen[place] = scenario


def table(live: Comparison, twin: Comparison, episodes: list[str]) -> Table:
    shown = Table(title=f"{live.workload}: {len(episodes)} episodes, live / twin")
    shown.add_column("controller")
    for heading in (*live.ranking_metrics, "deadline met", *episodes):
        shown.add_column(heading, justify="right")
    for name in ranking(live, UTILITY):
        one, other = live.metrics[name], twin.metrics[name]
        means = [f"{one[m].mean():.3f} / {other[m].mean():.3f}" for m in live.ranking_metrics]
        met = " / ".join(percent(known(side.interval(name, "slo_attainment").mean)) for side in (live, twin))
        each = [f"{a:.3f} / {b:.3f}" for a, b in zip(one[UTILITY].mean(0), other[UTILITY].mean(0), strict=True)]
        shown.add_row(name, *means, met, *each, style="bold" if name == "ppo" else None)
    return shown


def verdict(live: Comparison, twin: Comparison) -> list[str]:
    lines = []
    for metric in live.ranking_metrics:
        best = live.classical_by(metric)[0]
        gain = live.difference("ppo", best, metric)
        above = int((live.metrics["ppo"][metric].mean(0) > live.metrics[best][metric].mean(0)).sum())
        others = swapped(live, twin, metric)
        lines.append(
            f"{metric}: live ppo minus {best} (best classical) {gain.mean:+.4f}, above it in {above} of "
            f"{len(live.families)} episodes; ranking {'as in the twin' if not others else f'differs in {others}'}"
        )
    return lines


def live_range(setup: Setup, profile: Path) -> ScenarioRange:
    """The setup's range with device slowdowns converted from the shipped profile, and a MEC that can be emulated."""
    scale = shipped_slowdown(setup.bundle, profile)
    low, high = (max(scale * bound, 1.0) for bound in setup.range.device_slowdown)
    mec_low, mec_high = (max(bound, MEC_SLOWDOWN) for bound in setup.range.mec_slowdown)
    return replace(setup.range, device_slowdown=(low, high), mec_slowdown=(mec_low, mec_high))


def learned(options: argparse.Namespace, range_: ScenarioRange, profile: Path, console: Console) -> Entrants:
    """Tune controllers and train a policy on the training traces, for devices and MECs of the range."""
    bank = traces_of([], "train")
    setup = open_setup(options.workload, bank, "validation", range_, profile)
    names = chosen_names(options.controllers, has_policy=True, live=True)
    tunings = tuned(setup, [BUILTIN_TRAIN], options.out, console)
    policies = train_policies(setup, [], 1, STEPS, options.out, console, profile)
    return Entrants(names, policies, tunings.controllers)


def compare(options: argparse.Namespace, profile: Path) -> None:
    """Train unless a policy is given, choose scenarios, play them, and print the results."""
    console = Console(width=160)
    setup = open_setup(options.workload, traces_of(options.traces, "test"), "test", profile=profile)
    if options.scenarios > len(setup.bank):
        raise UsageError(
            f"got --scenarios {options.scenarios} on {len(setup.bank)} traces; expected at most one per trace"
        )
    range_ = live_range(setup, profile)
    setup = replace(setup, range=replace(range_, frames=options.frames))
    if options.policy:
        entrants = entrants_of(options.workload, options.controllers, [options.policy], options.tuning, live=True)
    else:
        entrants = learned(options, range_, profile, console)
    sources = [str(source) for source in options.traces] or [BUILTIN_TEST]
    seeds = default_seeds(len(setup.bank))
    drawn = paired_scenarios(setup, range(seeds))
    everywhere = play_in_twin(setup, entrants, sources, seeds, drawn)
    scenarios = representative(everywhere, drawn, options.scenarios)
    with Progress(console=Console(stderr=True)) as bar:
        task = bar.add_task("live", total=entrants.total * len(scenarios) * options.frames)
        live, _ = compare_live(setup, entrants, sources, scenarios, lambda done: bar.advance(task, done))
    twin = play_in_twin(setup, entrants, sources, options.scenarios, scenarios)
    for metric in live.ranking_metrics:
        means = ", ".join(f"{name} {mean:.3f}" for name, mean in ranking(everywhere, metric).items())
        console.print(f"{metric} in the twin over {len(drawn)} episodes: {means}", highlight=False)
    episodes = [on_trace(setup.bank, scenario).split("/")[0] for scenario in scenarios]
    console.print(table(live, twin, episodes))
    console.print("\n".join(verdict(live, twin)), highlight=False)
    if options.json:
        options.json.write_text(json.dumps({"live": as_json(live), "twin": as_json(twin)}, indent=1))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--workload", default="campus")
    parser.add_argument("--traces", type=Path, nargs="*", default=[], help="default: the built-in test traces")
    parser.add_argument("--controllers", default=CONTROLLERS, help="names, separated by commas")
    parser.add_argument(
        "--policy", type=Path, help="policy file of ppo; default: tune and train for this machine first"
    )
    parser.add_argument("--tuning", type=Path, help="tuning file, with --policy; default: the shipped one")
    parser.add_argument("--scenarios", type=int, default=5)
    parser.add_argument("--frames", type=int, default=600, help="per controller and scenario")
    parser.add_argument("--profile", type=Path, help="profile of this machine; default: measured now")
    parser.add_argument("--out", type=Path, default=Path("runs/live"), help="folder of the tuning and the policy")
    parser.add_argument("--json", type=Path, help="write the figures here")
    options = parser.parse_args()
    torch.set_num_threads(1)
    with machine_profile(options.workload, options.profile) as profile:
        compare(options, profile)


if __name__ == "__main__":
    main()
