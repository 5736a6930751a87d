"""Comparisons and tunings in pieces that any process can carry out (``agents.scale``).

A piece is a group of episodes under one controller, or one try of a tuning on all scenarios.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import msgspec
import numpy as np
from safetensors.numpy import load, save

from agents.compare.evaluation import SIDE_BY_SIDE, Entrants, Progress, Runs, joined, play_group, played_here
from agents.compare.tuning import Try, score_here
from agents.scale.pieces import Job, Reached
from agents.scale.runner import Keeps, Runner, fan_out
from agents.scale.setups import opened, opened_policy, plain_policy, plain_setup
from controller.metrics import Frames
from controller.scenario import Scenario
from envs.setup import Setup


class Spread:
    """Plays comparisons and tries of tunings on a runner, and keeps what is finished."""

    def __init__(self, runner: Runner, kept: Keeps | None = None) -> None:
        self._runner, self._kept = runner, kept

    def play(self, setup: Setup, entrants: Entrants, scenarios: Sequence[Scenario], progress: Progress) -> Runs:
        """As ``evaluation.played_here``. The user's own controllers are objects of this process, so they play here."""
        common = {"setup": plain_setup(setup), "entrants": _plain_entrants(entrants)}
        firsts = range(0, len(scenarios), SIDE_BY_SIDE)
        plain = {first: msgspec.to_builtins(scenarios[first : first + SIDE_BY_SIDE]) for first in firsts}
        wholes = [(name, copy) for name in (*entrants.names, *entrants.bounds) for copy in range(entrants.copies(name))]
        pieces = [
            {"name": name, "copy": copy, "first": first, "scenarios": plain[first]}
            for name, copy in wholes
            for first in firsts
        ]
        sizes = [sum(scenario["frames"] for scenario in piece["scenarios"]) for piece in pieces]
        job = Job.of("agents.compare.spread:group_of_episodes", common)
        groups = iter(map(_frames, fan_out(self._runner, job, pieces, sizes, progress, self._kept)))
        runs: dict[str, tuple[Frames, ...]] = {}
        for name, _ in wholes:
            runs[name] = (*runs.get(name, ()), joined([next(groups) for _ in firsts]))
        return runs | played_here(setup, entrants, scenarios, progress, names=tuple(entrants.own))

    def score(
        self, setup: Setup, tries: Sequence[Try], scenarios: Sequence[Scenario], progress: Callable[[int], None]
    ) -> list[float]:
        """As ``tuning.score_here``."""
        common = {"setup": plain_setup(setup), "scenarios": msgspec.to_builtins(scenarios)}
        job = Job.of("agents.compare.spread:try_of_tuning", common)
        pieces = [[name, msgspec.to_builtins(tuning)] for name, tuning in tries]
        return fan_out(self._runner, job, pieces, None, progress, self._kept)


def group_of_episodes(common: Any, own: Any, reached: Reached) -> Any:
    """A piece: the frames of a group of episodes under one copy of a controller."""
    done = 0

    def progress(frames: int) -> None:
        nonlocal done
        done += frames
        reached(done)

    entrants, scenarios = _entrants(common["entrants"]), msgspec.convert(own["scenarios"], list[Scenario])
    group = (own["name"], own["copy"], own["first"], scenarios)
    return _plain_frames(play_group(opened(common["setup"]), entrants, *group, progress))


def try_of_tuning(common: Any, own: Any, reached: Reached) -> Any:
    """A piece: the mean utility of a controller with a tuning."""
    name, tuning = own
    scenarios = msgspec.convert(common["scenarios"], list[Scenario])
    return score_here(opened(common["setup"]), [(name, tuning)], scenarios, lambda _: None)[0]


def _plain_entrants(entrants: Entrants) -> dict[str, Any]:
    policies = list(map(plain_policy, entrants.policies))
    tunings = msgspec.to_builtins(entrants.tunings)
    guard = {"guard": entrants.guard, "ranges": list(map(dict, entrants.ranges))}
    return {"names": entrants.names, "bounds": entrants.bounds, "policies": policies, "tunings": tunings, **guard}


def _entrants(plain: dict[str, Any]) -> Entrants:
    policies = list(map(opened_policy, plain["policies"]))
    bounds, ranges, guard = tuple(plain["bounds"]), plain["ranges"], plain["guard"]
    return Entrants(tuple(plain["names"]), policies, plain["tunings"], ranges=ranges, guard=guard, bounds=bounds)


def _plain_frames(frames: Frames) -> bytes:
    return save({name: np.ascontiguousarray(getattr(frames, name)) for name in Frames.__dataclass_fields__})


def _frames(plain: bytes) -> Frames:
    return Frames(**load(plain))
