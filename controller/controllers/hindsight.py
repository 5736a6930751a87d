"""What would a controller do that knows how long each candidate will really take?

The upper bound that other controllers are measured against. It reads ``SystemState.true_latency_s``, which only the
twin can fill, so it needs no estimate; like ``greedy`` it pays for the delay it would cause to the next frames.
"""

from __future__ import annotations

import numpy as np

from controller.controllers.greedy import value
from controller.controllers.simple import Memoryless
from controller.costs import CostTable
from controller.errors import UsageError
from controller.predict.expectation import Expectation, due_s, is_rescued, mec_s
from controller.records import Floats, Ints, SystemState
from controller.utility import Utility

#: Utility lost per frame interval of delay. Tuned per episode it gains less than 0.0003 on the built-in traces.
DEFAULT_PENALTY = 0.02


class Hindsight(Memoryless):
    """Maximises the true utility of the frame, less the delay penalty."""

    name = "hindsight"

    def __init__(self, costs: CostTable, utility: Utility, penalty: float) -> None:
        self._costs = costs
        self._utility = utility
        self._penalty = penalty

    def decide(self, state: SystemState) -> Ints:
        seen = known_outcome(self._costs, state)
        return np.asarray(value(self._costs, state, self._utility, seen, self._penalty).argmax(axis=1))


def known_outcome(costs: CostTable, state: SystemState) -> Expectation:
    """The expectation without any estimate of the uplink. UsageError outside the twin."""
    if state.true_latency_s is None:
        raise UsageError("hindsight needs the future; it runs in the twin only, choose another controller here")
    total = state.true_latency_s  # infinite where the request would meet a dead link
    head = costs.head_s * _true_slowdown(costs, state)[:, None]
    rescued = is_rescued(costs, state, head)
    crosses = np.isfinite(total) & ~costs.space.device_only
    left = np.where(crosses, total, 0.0) - state.frame_age_s[:, None] - head - mec_s(costs, state)
    link = np.where(crosses, np.maximum(left, 0.0), 0.0)
    return Expectation(head, link, link, total, total <= due_s(costs, state, rescued), rescued)


def _true_slowdown(costs: CostTable, state: SystemState) -> Floats:
    """(B,) device time / profiled time right now, which the device-only rows give away.

    The least of them: a fallback that preempts the head makes some of them look slower than the device is.
    """
    assert state.true_latency_s is not None
    rows = costs.local_frontier
    busy = state.true_latency_s[:, rows] - state.frame_age_s[:, None]
    return np.asarray((busy / costs.head_s[rows]).min(axis=1))
