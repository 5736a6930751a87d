"""Which row promises the most utility for this frame, and what does it cost the next ones?

``greedy`` believes one bandwidth estimate. Its value of a row is the expected utility per frame minus a penalty for
each frame interval by which the device or the link would be late for the next decision. The penalty is tuned; without
it a slow head that just meets its own deadline makes the frames behind it wait and be dropped.
"""

from __future__ import annotations

import numpy as np

from controller.controllers.simple import Memoryless
from controller.costs import CostTable
from controller.predict.estimators import Estimator
from controller.predict.expectation import Expectation, delay_frac, expectation, expected_utility, idle_state
from controller.records import Floats, Ints, SystemState
from controller.scenario import Scenario
from controller.utility import Utility

#: Utility lost per frame interval of delay. Any value up to 0.8 does equally well on the built-in traces, where a
#: deadline is rarely longer than a frame interval; it matters where deadlines are long.
DEFAULT_PENALTY = 0.2


class Greedy(Memoryless):
    """Maximises predicted utility under the estimator."""

    name = "greedy"

    def __init__(self, costs: CostTable, utility: Utility, estimator: Estimator, penalty: float) -> None:
        self._costs = costs
        self._utility = utility
        self._estimator = estimator
        self._penalty = penalty

    def decide(self, state: SystemState) -> Ints:
        seen = expectation(self._costs, state, self._estimator)
        return np.asarray(value(self._costs, state, self._utility, seen, self._penalty).argmax(axis=1))


def value(costs: CostTable, state: SystemState, utility: Utility, seen: Expectation, penalty: float) -> Floats:
    """(B, C) what each candidate is worth, its cost to the next frames included."""
    return expected_utility(costs, state, utility, seen) - penalty * delay_frac(costs, state, seen)


#: Conditions that stand for "anything": half-decades around 1 Mbit/s, devices around that of the default scenario.
_TYPICAL_BPS = (1e5, 3e5, 1e6, 3e6, 1e7)
_TYPICAL_PACE = (0.5, 1.0, 2.0, 4.0)


def typical_row(costs: CostTable, utility: Utility) -> int:
    """The row of the highest mean value over typical uplinks and devices: ``static-best``, untuned."""
    scenario = Scenario()
    bps, pace = (axis.ravel() for axis in np.meshgrid(_TYPICAL_BPS, _TYPICAL_PACE))
    everywhere = np.ones(len(bps))
    state = idle_state(
        deadline_s=scenario.deadline_s * everywhere,
        capture_period_s=everywhere / scenario.fps,
        device_slowdown=scenario.device_slowdown * pace,
        mec_slowdown=scenario.mec_slowdown * everywhere,
        mec_wait_s=scenario.rtt_s * everywhere,
        uplink_bps=bps,
    )
    seen = expectation(costs, state, Estimator())
    return int(value(costs, state, utility, seen, DEFAULT_PENALTY).mean(axis=0).argmax())
