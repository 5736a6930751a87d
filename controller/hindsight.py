"""What would a controller do that knows how long each candidate will really take?

The upper bound that other controllers are measured against. It reads ``SystemState.true_latency_s``, which only the
twin can fill, so it needs no estimate; like ``greedy`` it pays for the delay it would cause to the next frames.
"""

from __future__ import annotations

import numpy as np

from controller.classical import Memoryless
from controller.costs import CostTable
from controller.errors import UsageError
from controller.greedy import value
from controller.outlook import Outlook, due_s, mec_s
from controller.records import Floats, Ints, SystemState
from controller.utility import Utility

#: Utility lost per frame interval of delay, found on the built-in traces.
DEFAULT_PENALTY = 0.4


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


def known_outcome(costs: CostTable, state: SystemState) -> Outlook:
    """The outlook without any estimate of the uplink. UsageError outside the twin."""
    if state.true_latency_s is None:
        raise UsageError("hindsight needs the future; it runs in the twin only, choose another controller here")
    total = state.true_latency_s
    head = costs.head_s * _true_slowdown(costs, state)[:, None]
    due = due_s(costs, state, head)
    link = np.maximum(total - state.frame_age_s[:, None] - head - mec_s(costs, state), 0.0)
    link *= ~costs.space.device_only
    return Outlook(head, link, link, total, due, total <= due)


def _true_slowdown(costs: CostTable, state: SystemState) -> Floats:
    """(B,) device time / profiled time right now, which the latency of a device-only row gives away."""
    assert state.true_latency_s is not None
    row = costs.local_frontier[-1]
    return np.asarray((state.true_latency_s[:, row] - state.frame_age_s) / costs.head_s[row])
