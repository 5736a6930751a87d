"""Compares controllers on the same scenarios, in the twin or with real processes.

In the twin every controller plays every trace with every seed, and two controllers differ only in their decisions. Real
processes run in real time, so each seed is one scenario on one trace.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from agents.compare.bound import plan
from agents.compare.report import Comparison
from agents.compare.rollout import paired_scenarios, play
from agents.compare.traces import family
from agents.compare.trained_on import seen_before, trained_with, training_digests
from controller.controllers.base import Controller
from controller.controllers.learned import FrozenPolicy
from controller.controllers.registry import CONTROLLER_NAMES, LEARNED, ORACLE, TUNABLE_KEYS, make_controller
from controller.errors import UsageError, unknown_name
from controller.guard.make import make_guard
from controller.guard.ranges import Ranges
from controller.metrics import Frames
from controller.records import Outcome
from controller.scenario import Scenario
from envs.backend import Backend
from envs.networks import NetworkName
from envs.setup import Setup
from runtime.config.privacy import check_controller, may_run, privacy_notes
from runtime.config.sections.device import PrivacySection
from runtime.config.tree import DEFAULTS
from runtime.files.policy_file import load_policy, shipped_policy, used_policy
from runtime.files.provenance import Provenance, Used, comparability
from runtime.files.tuning_file import load_tunings, tuning_of, used_tuning
from runtime.profiling.hardware_encoder import hardware_notes
from runtime.profiling.profile import used_profile
from runtime.workloads.base import stream_score

#: Batch size of the twin, in episodes.
SIDE_BY_SIDE = 512
#: Defaults of a comparison in the twin: number of episodes, and most scenarios per trace.
EPISODES, MOST_SEEDS = 512, 8
#: Default number of scenarios with real processes, which run in real time.
LIVE_SCENARIOS = 3
Progress = Callable[[int], None]  # called with the number of frames that ended since the last call
Maker = Callable[[Setup], Controller]  # makes one of the user's controllers
Runs = dict[str, tuple[Frames, ...]]  # the frames of every copy of a controller


@dataclass(frozen=True)
class Entrants:
    """The controllers of a comparison, and everything to make them."""

    names: tuple[str, ...]
    policies: Sequence[FrozenPolicy] = ()  # copies of ppo, one per training seed
    tunings: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    files: Sequence[tuple[Used, Mapping[str, Any]]] = ()  # policy files, each with the description of its training
    tuning_file: Used | None = None
    own: Mapping[str, Maker] = field(default_factory=dict)  # the user's controllers, besides ``names``
    own_notes: tuple[str, ...] = ()  # lines about them for the report
    ranges: Sequence[Ranges] = ()  # of what each copy of ppo saw in its training
    guard: str = ""  # the classical controller that guards ppo; empty: none does
    bounds: tuple[str, ...] = ()  # searches that know the future, see ``agents.compare.bound``

    def copies(self, name: str) -> int:
        """Number of copies of a controller; each plays every scenario."""
        return len(self.policies) if name == LEARNED else 1

    @property
    def total(self) -> int:
        """Number of passes over the scenarios: all copies of all controllers."""
        return sum(map(self.copies, self.all_names))

    @property
    def all_names(self) -> tuple[str, ...]:
        return (*self.names, *self.own, *self.bounds)

    def make(self, name: str, setup: Setup, batch: int, seed: int = 0) -> list[Controller]:
        """The copies of one controller, each for ``batch`` episodes."""
        if name in self.own:
            return [self.own[name](setup)]
        if name == LEARNED and self.guard:
            return self._guarded(setup, batch, seed)
        policies: Sequence[FrozenPolicy | None] = self.policies if name == LEARNED else [None]
        tuning = tuning_of(name, self.tunings, setup.costs)
        utility = setup.range.utility
        return [make_controller(name, setup.costs, utility, tuning, seed, policy, batch) for policy in policies]

    def _guarded(self, setup: Setup, batch: int, seed: int) -> list[Controller]:
        """The copies of ppo, each with a guard of its own."""
        costs, tuning = setup.costs, tuning_of(self.guard, self.tunings, setup.costs)
        return [
            make_guard(costs, setup.range.utility, policy, self.guard, tuning, ranges, seed, batch)
            for policy, ranges in zip(self.policies, self.ranges, strict=True)
        ]


def chosen_names(
    controllers: str | None, has_policy: bool, live: bool, privacy: PrivacySection = DEFAULTS.privacy
) -> tuple[str, ...]:
    """The controllers of a comma-separated list; by default all that can run here. UsageError for a bad list."""
    possible = [name for name in CONTROLLER_NAMES if not (live and name == ORACLE) and may_run(name, privacy)]
    if controllers is None:
        return tuple(name for name in possible if has_policy or name != LEARNED)
    names = tuple(dict.fromkeys(name.strip() for name in controllers.split(",") if name.strip()))
    for name in names:
        if name not in CONTROLLER_NAMES:
            raise unknown_name("controller", name, CONTROLLER_NAMES)
        check_controller(name, privacy)
        if name not in possible:
            raise UsageError(f"{name} knows the future and runs only in the twin; leave it out, or leave out --live")
    if not names:
        raise UsageError(f"got no controller; expected some of: {', '.join(possible)}")
    if LEARNED in names and not has_policy:
        raise UsageError(
            "got ppo without --policy FILE, and no policy is shipped; `mecpilot export` writes policy files"
        )
    return names


def entrants_of(
    workload: str,
    controllers: str | None,
    policies: Sequence[Path] = (),
    tuning: Path | None = None,
    *,
    live: bool = False,
    privacy: PrivacySection = DEFAULTS.privacy,
    guard: str = "",
) -> Entrants:
    """The named controllers with their tunings, and ppo from policy files.

    Defaults: all controllers that can run, the shipped policy, the shipped tuning. ``guard``: the classical controller
    that guards ppo. UsageError for names or files that cannot be used.
    """
    files = policies or [path for path in [shipped_policy(workload)] if path]
    names = chosen_names(controllers, bool(files), live, privacy)
    if policies and LEARNED not in names:
        raise UsageError("got --policy without ppo among --controllers; give both or neither")
    loaded = [(path, *load_policy(path, workload)) for path in files] if LEARNED in names else []
    return Entrants(
        names,
        [policy for _, policy, _ in loaded],
        load_tunings(workload, tuning),
        [(used_policy(path), manifest.training) for path, _, manifest in loaded],
        used_tuning(workload, tuning),
        ranges=[manifest.ranges for _, _, manifest in loaded],
        guard=guard,
    )


def provenance_of(setup: Setup, entrants: Entrants, *, live: bool = False) -> Provenance:
    """The files that a comparison used, and notes on what limits its figures."""
    profile = used_profile(setup.bundle, setup.profile)
    notes = [*(() if live else _replay_notes(setup)), *comparability(profile), *privacy_notes(setup.privacy)]
    notes += hardware_notes(setup.range.hardware_encoder) + setup.techniques.notes
    for file, training in entrants.files:
        notes += seen_before(f"ppo, policy {file.text}", training_digests(training), setup.bank)
        notes += trained_with(f"ppo, policy {file.text}", training)
    untuned = [name for name in entrants.names if TUNABLE_KEYS[name] and name not in entrants.tunings]
    if untuned:
        notes.append(f"note: not in the tuning file, so with default parameters: {', '.join(untuned)}")
    if entrants.guard and LEARNED in entrants.names:
        notes.append(f"note: {LEARNED} is guarded by {entrants.guard} (docs/policy.md)")
    notes += entrants.own_notes
    policies = tuple(file for file, _ in entrants.files)
    return Provenance(setup.workload, setup.bundle.digest, profile, policies, entrants.tuning_file, tuple(notes))


def default_seeds(traces: int) -> int:
    """Scenarios per trace so that a comparison in the twin takes less than a minute for any number of traces."""
    return max(1, min(MOST_SEEDS, EPISODES // traces))


def played_here(
    setup: Setup,
    entrants: Entrants,
    scenarios: Sequence[Scenario],
    progress: Progress,
    names: Sequence[str] | None = None,
) -> Runs:
    """Every copy of the named controllers (default: all) on the given scenarios, played in this process."""
    return {
        name: tuple(_played(setup, entrants, name, copy, scenarios, progress) for copy in range(entrants.copies(name)))
        for name in (entrants.all_names if names is None else names)
    }


#: Plays controllers on scenarios, in this process or elsewhere (``agents.compare.spread``).
Player = Callable[[Setup, Entrants, Sequence[Scenario], Progress], Runs]


def compare_in_twin(
    setup: Setup,
    entrants: Entrants,
    sources: Sequence[str],
    seeds: int,
    progress: Progress = lambda _: None,
    play_all: Player = played_here,
) -> Comparison:
    """Play every controller on every trace with every seed, in the twin."""
    return play_in_twin(setup, entrants, sources, seeds, paired_scenarios(setup, range(seeds)), progress, play_all)


def play_in_twin(
    setup: Setup,
    entrants: Entrants,
    sources: Sequence[str],
    seeds: int,
    scenarios: Sequence[Scenario],
    progress: Progress = lambda _: None,
    play_all: Player = played_here,
) -> Comparison:
    """Play every controller on the given scenarios, in the twin."""
    runs = play_all(setup, entrants, scenarios, progress)
    families, provenance = _families(setup, scenarios), provenance_of(setup, entrants)
    own = tuple(entrants.own)
    subject = _subject(setup)
    return Comparison(setup.workload, "twin", tuple(sources), seeds, families, runs, provenance, own, subject)


def _subject(setup: Setup) -> str:
    """What the title of a comparison in the twin says about a workload that uses the bundle of another."""
    name = setup.bundle.work.name
    return "" if name == setup.workload else f"{name}, on the recordings of bundle {setup.workload}"


def _replay_notes(setup: Setup) -> list[str]:
    name = setup.bundle.work.name
    if name == setup.workload:
        return []
    if setup.bundle.work.recorded_samples(setup.split) is not None:
        return [
            f"note: {name} shows samples again, in another light; the twin replays the recorded answers to the samples "
            "as they are (docs/cache.md)"
        ]
    return [
        f"note: the twin replays the recorded answers of bundle {setup.workload}, not the frames of {name}; measure "
        "those with `mecpilot device`, or train a bundle with `mecpilot models train`"
    ]


def _families(setup: Setup, scenarios: Sequence[Scenario]) -> tuple[str, ...]:
    return tuple(family(setup.bank.traces[scenario.trace_index]) for scenario in scenarios)


def _played(
    setup: Setup, entrants: Entrants, name: str, copy: int, scenarios: Sequence[Scenario], progress: Progress
) -> Frames:
    firsts = range(0, len(scenarios), SIDE_BY_SIDE)
    return joined(
        [
            play_group(setup, entrants, name, copy, first, scenarios[first : first + SIDE_BY_SIDE], progress)
            for first in firsts
        ]
    )


def play_group(
    setup: Setup,
    entrants: Entrants,
    name: str,
    copy: int,
    first: int,
    scenarios: Sequence[Scenario],
    progress: Progress,
) -> Frames:
    """Play up to SIDE_BY_SIDE scenarios under a copy of a controller; ``first`` is the number of the first of them."""
    controller = player(setup, entrants, name, copy, scenarios, first)
    frames = play(setup, controller, scenarios, oracle=name == ORACLE, progress=progress).frames
    progress(int((frames.dropped | frames.reused).sum()))  # frames without a decision
    return renumbered(frames, first)


def player(
    setup: Setup, entrants: Entrants, name: str, copy: int, scenarios: Sequence[Scenario], seed: int = 0
) -> Controller:
    """What decides in the given scenarios of the twin: a copy of a controller, or the plan of a bound."""
    if name in entrants.bounds:
        return plan(setup, name, scenarios)
    return entrants.make(name, setup, len(scenarios), seed)[copy]


@dataclass(frozen=True)
class LiveEpisodes:
    """Outcomes of real processes, by controller, copy and scenario."""

    scenarios: Sequence[Scenario]
    outcomes: Mapping[str, Sequence[Sequence[list[Outcome]]]]


def compare_live(
    setup: Setup,
    entrants: Entrants,
    sources: Sequence[str],
    scenarios: Sequence[Scenario],
    progress: Progress = lambda _: None,
    network: NetworkName = "emulated",
) -> tuple[Comparison, LiveEpisodes]:
    """Play every controller on the given scenarios, with real processes and in real time; ``network``: see
    ``envs.networks``."""
    outcomes: dict[str, list[list[list[Outcome]]]] = {
        n: [[] for _ in range(entrants.copies(n))] for n in entrants.all_names
    }
    backend = setup.live(learning=False, network=network)
    try:
        for scenario in scenarios:  # controllers in the inner loop: a slow phase of the machine affects all of them
            for name in entrants.all_names:
                for controller, episodes in zip(entrants.make(name, setup, batch=1), outcomes[name], strict=True):
                    episodes.append(_live_episode(backend, controller, scenario, progress))
    finally:
        backend.close()
    runs = {n: tuple(_frames_of(episodes, scenarios, setup) for episodes in copies) for n, copies in outcomes.items()}
    families, provenance = _families(setup, scenarios), provenance_of(setup, entrants, live=True)
    kind = "live" if network == "emulated" else f"live, {network}"
    about = (setup.workload, kind, tuple(sources), len(scenarios))
    comparison = Comparison(*about, families, runs, provenance, tuple(entrants.own))
    return comparison, LiveEpisodes(scenarios, outcomes)


def _live_episode(backend: Backend, controller: Controller, scenario: Scenario, progress: Progress) -> list[Outcome]:
    state, done = backend.reset(scenario), False
    controller.reset(np.ones(1, bool))
    outcomes: list[Outcome] = []
    while not done:
        step = backend.step(int(controller.decide(state)[0]))
        state, done = step.state, step.done
        ended = msgspec.convert(step.info["outcomes"], list[Outcome])
        outcomes += ended
        progress(len(ended))
    return sorted(outcomes, key=lambda outcome: outcome.frame)


def _frames_of(episodes: Sequence[list[Outcome]], scenarios: Sequence[Scenario], setup: Setup) -> Frames:
    work = setup.bundle.work
    score = stream_score(work)
    return joined(
        [
            Frames.from_outcomes(
                outcomes, 1.0 / scenario.fps, episode, score, work.forecaster() if setup.techniques.forecast else None
            )
            for episode, (outcomes, scenario) in enumerate(zip(episodes, scenarios, strict=True))
        ]
    )


def renumbered(frames: Frames, first: int) -> Frames:
    """The same frames with episodes counted from ``first``."""
    columns = {name: getattr(frames, name) for name in Frames.__dataclass_fields__}
    return Frames(**{**columns, "episode": frames.episode + first})


def joined(parts: Sequence[Frames]) -> Frames:
    """The frames of several tables in one."""
    names = Frames.__dataclass_fields__
    return Frames(**{name: np.concatenate([getattr(part, name) for part in parts]) for name in names})
