"""``greedy``: the row with the highest expected utility, less a penalty for delaying the next frames.

It trusts one bandwidth estimate. The value of a row is the expected utility per frame minus a penalty for each capture
period by which the device or the link would be late for the next decision. The penalty is tuned. Without it, a slow
head that just meets its own deadline makes the frames behind it wait and be dropped.
"""

from __future__ import annotations

import numpy as np

from controller.controllers.simple import Memoryless
from controller.costs import CostTable
from controller.predict.estimators import Estimator
from controller.predict.expectation import (
    Expectation,
    delay_frac,
    expectation,
    expected_utility,
    idle_state,
    over_paths,
)
from controller.records import Floats, Ints, SystemState
from controller.scenario import Scenario
from controller.utility import Utility

#: Utility lost per capture period of delay. Any value up to 0.8 does equally well on the built-in traces, where a
#: deadline is rarely longer than a capture period; it matters where deadlines are long.
DEFAULT_PENALTY = 0.2


class Greedy(Memoryless):
    """Maximises the value of the candidate under the bandwidth estimate."""

    name = "greedy"

    def __init__(self, costs: CostTable, utility: Utility, estimator: Estimator, penalty: float) -> None:
        self._costs = costs
        self._utility = utility
        self._estimator = estimator
        self._penalty = penalty

    def decide(self, state: SystemState) -> Ints:
        def value(costs: CostTable) -> Floats:
            expected = expectation(costs, state, self._estimator)
            return candidate_value(costs, state, self._utility, expected, self._penalty)

        return np.asarray(over_paths(self._costs, value).argmax(axis=1))


def candidate_value(
    costs: CostTable, state: SystemState, utility: Utility, expected: Expectation, penalty: float
) -> Floats:
    """(B, C) expected utility per frame, less ``penalty`` per capture period of delay of the next decision."""
    return expected_utility(costs, state, utility, expected) - penalty * delay_frac(costs, state, expected)


#: Typical conditions: half-decades around 1 Mbit/s, and devices around that of the default scenario, by factors.
_TYPICAL_BPS = (1e5, 3e5, 1e6, 3e6, 1e7)
_TYPICAL_SLOWDOWN = (0.5, 1.0, 2.0, 4.0)


def typical_row(costs: CostTable, utility: Utility) -> int:
    """The row with the highest mean value over typical uplinks and devices: ``static-best`` without tuning."""
    scenario = Scenario()
    bps, slowdown = (axis.ravel() for axis in np.meshgrid(_TYPICAL_BPS, _TYPICAL_SLOWDOWN))
    everywhere = np.ones(len(bps))
    state = idle_state(
        deadline_s=scenario.deadline_s * everywhere,
        capture_period_s=everywhere / scenario.fps,
        device_slowdown=scenario.device_slowdown * slowdown,
        mec_slowdown=scenario.mec_slowdown * everywhere,
        mec_wait_s=scenario.rtt_s * everywhere,
        uplink_bps=bps,
    )

    def value(paths: CostTable) -> Floats:
        return candidate_value(paths, state, utility, expectation(paths, state, Estimator()), DEFAULT_PENALTY)

    return int(over_paths(costs, value).mean(axis=0).argmax())
