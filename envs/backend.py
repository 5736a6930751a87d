"""The backend interface of the environment, ``reset`` and ``step``, and the twin behind it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from controller.costs import CostTable
from controller.records import STATUSES, SystemState
from controller.scenario import Scenario
from envs.twin.record import StepRecord
from envs.twin.twin import Twin


@dataclass(frozen=True, slots=True)
class Step:
    """What one decision led to."""

    state: SystemState  # one row: the next decision point, or the last one seen when the episode is over
    reward: float
    done: bool  # the episode has no more frames
    info: dict[str, Any]  # raw terms, each a number, a string or a dictionary of these


class Backend(Protocol):
    """One device on one scenario at a time."""

    costs: CostTable  # the decisions that ``step`` takes rows of
    deterministic: bool  # equal scenarios and rows give equal states

    def reset(self, scenario: Scenario) -> SystemState:
        """Begin an episode; its first decision point."""
        ...

    def step(self, row: int) -> Step:
        """Decide the frame at hand."""
        ...

    def close(self) -> None:
        """Let go of whatever runs; may be called twice."""
        ...


class TwinBackend:
    """The twin with a batch of one."""

    deterministic = True

    def __init__(self, twin: Twin) -> None:
        assert twin.batch == 1
        self._twin = twin
        self.costs = twin.costs

    def reset(self, scenario: Scenario) -> SystemState:
        return self._twin.reset(scenarios=[scenario])

    def step(self, row: int) -> Step:
        state, record = self._twin.step(np.array([row]))
        return Step(state, float(record.reward[0]), bool(record.done[0]), step_info(record, 0))

    def close(self) -> None:
        """Nothing runs."""


def step_info(record: StepRecord, row: int) -> dict[str, Any]:
    """One row of a record in plain values."""
    return {
        "frame": int(record.frame[row]),
        "source_index": int(record.sample[row]),
        "status": STATUSES[record.status[row]].value,
        "latency_s": float(record.latency_s[row]),
        "score": float(record.score[row]),
        "accuracy": float(record.accuracy[row]),
        "energy_j": float(record.energy_j[row]),
        "payload_bytes": float(record.payload_bytes[row]),
        "utility": float(record.utility[row]),
        "reused": int(record.reused_frames[row]),
        "reused_score": float(record.reused_score[row]),
        "dropped": int(record.dropped[row]),
        "breakdown_s": {name: float(term[row]) for name, term in record.breakdown_s().items()},
    }
