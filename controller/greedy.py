"""Which row promises the most utility for this frame, and what does it cost the next ones?

``greedy`` believes one bandwidth estimate. Its value of a row is the expected utility of the frame minus a penalty for
each frame interval by which the device or the link would be late for the next frame. The penalty is tuned; without
it a slow head that just meets its own deadline makes the frames behind it wait and be dropped.
"""

from __future__ import annotations

import numpy as np

from controller.classical import Memoryless
from controller.costs import CostTable
from controller.estimators import Estimator
from controller.outlook import Outlook, delay_frac, expected_utility, idle_state, outlook
from controller.records import Floats, Ints, SystemState
from controller.scenario import Scenario
from controller.utility import Utility

#: Utility lost per frame interval of delay: about half of what a frame is worth, found on the built-in traces.
DEFAULT_PENALTY = 0.4


class Greedy(Memoryless):
    """Maximises predicted utility under the estimator."""

    name = "greedy"

    def __init__(self, costs: CostTable, utility: Utility, estimator: Estimator, penalty: float) -> None:
        self._costs = costs
        self._utility = utility
        self._estimator = estimator
        self._penalty = penalty

    def decide(self, state: SystemState) -> Ints:
        seen = outlook(self._costs, state, self._estimator)
        return np.asarray(value(self._costs, state, self._utility, seen, self._penalty).argmax(axis=1))


def value(costs: CostTable, state: SystemState, utility: Utility, seen: Outlook, penalty: float) -> Floats:
    """(B, C) what each candidate is worth, its cost to the next frames included."""
    return expected_utility(costs, state, utility, seen) - penalty * delay_frac(state, seen)


#: Bandwidths that stand for "anything": half-decades around 1 Mbit/s.
_TYPICAL_BPS = np.array([1e5, 3e5, 1e6, 3e6, 1e7])


def typical_row(costs: CostTable, utility: Utility) -> int:
    """The row of the highest mean value over typical uplinks in the default scenario: ``static-best``, untuned."""
    scenario = Scenario()

    def everywhere(value: float) -> Floats:
        return np.full(len(_TYPICAL_BPS), value)

    state = idle_state(
        deadline_s=everywhere(scenario.deadline_s),
        frame_interval_s=everywhere(1.0 / scenario.fps),
        device_slowdown=everywhere(scenario.device_slowdown),
        mec_slowdown=everywhere(scenario.mec_slowdown),
        mec_wait_s=everywhere(scenario.rtt_s),
        uplink_bps=_TYPICAL_BPS,
    )
    seen = outlook(costs, state, Estimator())
    return int(value(costs, state, utility, seen, DEFAULT_PENALTY).mean(axis=0).argmax())
