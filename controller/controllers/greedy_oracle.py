"""``greedy-oracle``: the greedy controller that knows how long each candidate will take.

It maximises the utility of one frame, so it is a reference for other controllers, but no bound (``envs.search`` finds
one). It reads ``SystemState.true_latency_s``, which only the twin fills, so it needs no bandwidth estimate. Like
``greedy`` it pays for the delay that it causes to the next frames.
"""

from __future__ import annotations

import numpy as np

from controller.controllers.greedy import candidate_value
from controller.controllers.simple import Memoryless
from controller.costs import CostTable
from controller.errors import UsageError
from controller.predict.expectation import Expectation, due_s, is_rescued, mec_s
from controller.records import Floats, Ints, SystemState
from controller.utility import Utility

#: Utility lost per capture period of delay. Tuning it per episode gains less than 0.0003 on the built-in traces.
DEFAULT_PENALTY = 0.02


class GreedyOracle(Memoryless):
    """Maximises the true utility of the frame, less the delay penalty."""

    name = "greedy-oracle"

    def __init__(self, costs: CostTable, utility: Utility, penalty: float) -> None:
        self._costs = costs
        self._utility = utility
        self._penalty = penalty

    def decide(self, state: SystemState) -> Ints:
        known = known_outcome(self._costs, state)
        value = candidate_value(self._costs, state, self._utility, known, self._penalty)
        return np.asarray(value.argmax(axis=1))


def known_outcome(costs: CostTable, state: SystemState) -> Expectation:
    """The Expectation from true latencies instead of estimates. UsageError outside the twin."""
    if state.true_latency_s is None:
        raise UsageError("controller greedy-oracle runs in the twin only: got no true latencies; choose another one")
    total = state.true_latency_s  # infinite where the request would meet a dead link
    head = costs.head_s * _true_slowdown(costs, state)[:, None]
    rescued = is_rescued(costs, state, head)
    crosses = np.isfinite(total) & ~costs.space.device_only
    left = np.where(crosses, total, 0.0) - state.frame_age_s[:, None] - head - mec_s(costs, state)
    link = np.where(crosses, np.maximum(left, 0.0), 0.0)
    return Expectation(head, link, link, total, total <= due_s(costs, state, rescued), rescued)


def _true_slowdown(costs: CostTable, state: SystemState) -> Floats:
    """(B,) true device time / profiled time at this moment, from the true latencies of the device-only rows.

    The least over the rows, because a fallback that preempts the head makes some rows look slower than the device is.
    """
    assert state.true_latency_s is not None
    rows = costs.local_frontier
    busy = state.true_latency_s[:, rows] - state.frame_age_s[:, None]
    return np.asarray((busy / costs.head_s[rows]).min(axis=1))
