"""The bounds of a comparison: what those rows earn that a search finds which knows the future (``envs.search``)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from controller.errors import UsageError
from controller.records import Bools, Ints, SystemState
from controller.scenario import Scenario
from envs.search.best import best_rows
from envs.setup import Setup
from envs.twin.twin import Reward


@dataclass(frozen=True, slots=True)
class Aim:
    """What a search maximises."""

    reward: Reward = "replayed"  # "expected": it does not know which answers will be right
    streaming_weight: float = 0.0  # of streaming accuracy, beside utility


BOUND = "bound"
#: By the name in tables. Streaming accuracy has the weight 1, so that the sum of both columns is what is bounded.
AIMS = {
    BOUND: Aim(),
    "bound-expected": Aim(reward="expected"),
    "bound-streaming": Aim(streaming_weight=1.0),
}


def bounds_of(setup: Setup) -> tuple[str, ...]:
    """The names of the bounds that a workload has; UsageError where frames may be answered without a decision."""
    if setup.twin_shortcuts:
        raise UsageError("got shortcuts and a bound; expected one of them: the bound decides every frame")
    is_stream = setup.recorded.lagged is not None
    return tuple(name for name, aim in AIMS.items() if is_stream or not aim.streaming_weight)


class Plan:
    """Decides what was planned for its episodes: ``rows`` (B, F) at each frame, -1 where none is to be decided."""

    def __init__(self, name: str, rows: Ints) -> None:
        self.name = name
        order = np.argsort(rows < 0, axis=1, kind="stable")
        self._rows = np.maximum(np.take_along_axis(rows, order, axis=1), 0)
        self._decided = 0

    def reset(self, rows: Bools) -> None:
        self._decided = 0

    def decide(self, state: SystemState) -> Ints:
        step = min(self._decided, self._rows.shape[1] - 1)
        self._decided += 1
        return np.asarray(self._rows[:, step])


def plan(setup: Setup, name: str, scenarios: Sequence[Scenario]) -> Plan:
    """The best that can be done in the given scenarios, by the aim of that name."""
    aim = AIMS[name]
    twin = setup.twin(len(scenarios), reward=aim.reward)
    twin.reset(scenarios=scenarios)
    return Plan(name, best_rows(twin, aim.streaming_weight)[1])
