"""Measures the guard and the shadow in the twin, on the built-in held-out traces.

``python -m benchmarks.bench_guard`` plays ppo with and without its guard, and expected-utility; then policies that
are broken in several ways, with and without the guard. Every row plays the same scenarios; differences are paired,
with bootstrap intervals over episodes. ``--shadow`` compares what a shadow estimates with what the candidate really
gets when it decides. ``--frames`` sets the length of the episodes: a device serves longer than 300 frames.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from rich.table import Table

from agents.compare.evaluation import Entrants, entrants_of
from agents.compare.rollout import Watch, paired_scenarios, play
from benchmarks.support.broken import FrozenFeatures, Stuck, noised
from controller.controllers.base import Controller
from controller.controllers.learned import FrozenPolicy, Policy
from controller.features.fast import Features
from controller.guard.guard import COUNTS, REASONS, Guard
from controller.guard.make import make_guard
from controller.records import Bools, Floats, Ints, SystemState
from controller.scenario import Scenario
from controller.shadow import Shadow
from envs.setup import Setup, open_setup, traces_of
from runtime.files.policy_file import load_policy, shipped_policy
from runtime.observe.tables import table_console

#: Decisions after which something breaks that worked before.
SOUND = 30
RULE = "expected-utility"
PAIRS = (
    ("ppo", "device-only"),
    ("device-only", "ppo"),
    ("ppo", "jpeg-offload"),
    ("ppo", "greedy"),
    ("greedy", "ppo"),
    ("ppo", RULE),
)


class Bench:
    """Owns the scenarios; everything plays all of them."""

    def __init__(self, workload: str, seeds: int, frames: int) -> None:
        self.setup: Setup = open_setup(workload, traces_of(None, "test"), "test")
        self.scenarios: Sequence[Scenario] = [
            replace(scenario, frames=frames) for scenario in paired_scenarios(self.setup, range(seeds))
        ]
        names = sorted({RULE, *(name for pair in PAIRS for name in pair)})
        self.entrants: Entrants = entrants_of(workload, ",".join(names))

    def make(self, name: str) -> Controller:
        return self.entrants.make(name, self.setup, len(self.scenarios))[0]

    def utilities(self, controller: Controller, watch: Watch | None = None) -> Floats:
        """(episodes,) mean utility of each."""
        frames = play(self.setup, controller, self.scenarios, watch=watch).frames
        sums = np.bincount(frames.episode, frames.utility, len(self.scenarios))
        return np.asarray(sums / np.bincount(frames.episode, minlength=len(self.scenarios)))

    def policy(self, policy: FrozenPolicy, *, guarded: bool, frozen: bool = False) -> Controller:
        """ppo with these weights. ``frozen``: after a while it sees nothing new, while the guard does."""
        costs, utility = self.setup.costs, self.setup.range.utility
        learned = Policy(policy, FrozenFeatures(costs, utility, SOUND)) if frozen else None
        if not guarded:
            return learned or Policy(policy, Features(costs, utility))
        tuning, ranges, batch = self.entrants.tunings[RULE], self.entrants.ranges[0], len(self.scenarios)
        return make_guard(costs, utility, policy, RULE, tuning, ranges, batch=batch, learned=learned)


def with_interval(differences: Floats) -> str:
    """The mean of paired differences (episodes,) with a 95 % bootstrap interval."""
    rng = np.random.default_rng(0)
    draws = differences[rng.integers(len(differences), size=(2000, len(differences)))].mean(axis=1)
    low, high = np.quantile(draws, [0.025, 0.975])
    return f"{differences.mean():+.4f} [{low:+.4f}, {high:+.4f}]"


def guard_table(bench: Bench, workload: str) -> Table:
    sound = bench.entrants.policies[0]
    other = "garments" if workload == "campus" else "campus"
    path = shipped_policy(other)
    assert path is not None
    kinds: dict[str, tuple[FrozenPolicy, bool, bool]] = {
        "as shipped": (sound, False, False),
        "weights noised by 0.3": (noised(sound, 0.3, 0), False, False),
        "weights noised by 1 (a)": (noised(sound, 1.0, 1), False, False),
        "weights noised by 1 (b)": (noised(sound, 1.0, 2), False, False),
        "weights noised by 3": (noised(sound, 3.0, 3), False, False),
        f"policy of {other}": (load_policy(path)[0], False, False),
        "features frozen": (sound, True, False),
        "telemetry stuck": (sound, False, True),
    }
    rule = bench.utilities(bench.make(RULE))
    table = Table(title=f"{workload}: {len(bench.scenarios)} episodes; utility of {RULE}: {rule.mean():.4f}")
    for heading in ("policy", "alone", "guarded", "guarded - alone", "decided by the rule", *REASONS, "returns"):
        table.add_column(heading)
    for name, (policy, frozen, stuck) in kinds.items():
        guard = bench.policy(policy, guarded=True, frozen=frozen)
        assert isinstance(guard, Guard)
        counted = Counted(guard)
        alone = bench.utilities(_on_device(bench.policy(policy, guarded=False, frozen=frozen), stuck))
        guarded = bench.utilities(_on_device(guard, stuck), counted.watch)
        notes = counted.notes()
        share = notes["classical_decisions"] / notes["decisions"]
        counts = [f"{notes[f'hand_overs_{reason}']:.0f}" for reason in REASONS]
        figures = (f"{alone.mean():.4f}", f"{guarded.mean():.4f}", with_interval(guarded - alone), f"{share:.1%}")
        table.add_row(name, *figures, *counts, f"{notes['returns']:.0f}")
    stuck_rule = bench.utilities(Stuck(bench.make(RULE), SOUND))
    table.caption = f"{RULE} with telemetry stuck: {stuck_rule.mean():.4f}"
    return table


class Counted:
    """The counts of a guard, of the episodes that are running: it decides on in those that are over."""

    def __init__(self, guard: Guard) -> None:
        self._guard, self._counts = guard, np.zeros_like(guard.counts)

    def watch(self, _: SystemState, __: Ints, running: Bools) -> None:
        self._counts[running] = self._guard.counts[running]

    def notes(self) -> dict[str, int]:
        return dict(zip(COUNTS, self._counts.sum(axis=0).tolist(), strict=True))


def _on_device(controller: Controller, stuck: bool) -> Controller:
    """The controller, on a device whose telemetry is ``stuck`` after a while."""
    return Stuck(controller, SOUND) if stuck else controller


def shadow_table(bench: Bench, workload: str) -> Table:
    table = Table(title=f"{workload}: what a shadow estimates, and what is true, per frame")
    for heading in ("active", "candidate", "equal", "estimated", "true", "active by the model", "really"):
        table.add_column(heading)
    real = {name: bench.utilities(bench.make(name)) for name in {name for pair in PAIRS for name in pair}}
    for active, candidate in PAIRS:
        shadow = Shadow(candidate, bench.make(candidate), bench.setup.costs, bench.setup.range.utility)
        shadow.reset(np.ones(len(bench.scenarios), bool))
        play(bench.setup, bench.make(active), bench.scenarios, watch=shadow.look)
        notes = shadow.notes()
        table.add_row(
            active,
            candidate,
            f"{notes['equal_frac']:.0%}",
            f"{notes['modelled_difference']:+.4f} +- {notes['modelled_difference_error']:.4f}",
            with_interval(real[candidate] - real[active]),
            f"{notes['modelled_utility_of_active']:.4f}",
            f"{real[active].mean():.4f}",
        )
    return table


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--workload", default="campus")
    parser.add_argument("--seeds", type=int, default=4, help="scenarios per trace")
    parser.add_argument("--frames", type=int, default=300, help="per episode")
    parser.add_argument("--shadow", action="store_true", help="the estimates of a shadow instead of the guard")
    options = parser.parse_args()
    bench = Bench(options.workload, options.seeds, options.frames)
    table_console(True).print((shadow_table if options.shadow else guard_table)(bench, options.workload))


if __name__ == "__main__":
    main()
