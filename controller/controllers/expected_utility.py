"""``expected-utility``: the row with the highest expected utility, if delays stray from what is predicted.

Where ``greedy`` asks whether a row will be in time, this one asks how likely that is. It knows what a missed answer
costs, too: the device time of the fallback, and a reply that is given up. That value is a feature of the learned policy
(``controller.features.scalar``), which starts from this rule.
"""

from __future__ import annotations

import numpy as np

from controller.controllers.simple import Memoryless
from controller.costs import CostTable
from controller.errors import unknown_name
from controller.features.fast import Features
from controller.features.schema import BANDWIDTHS, CANDIDATE_FEATURES
from controller.records import Ints, SystemState
from controller.utility import Utility

#: The estimate that the policy starts from.
DEFAULT_ESTIMATE = "hopeful"


class ExpectedUtility(Memoryless):
    """Maximises the value under one of the bandwidth estimates of the features."""

    name = "expected-utility"

    def __init__(self, costs: CostTable, utility: Utility, estimate: str, features: Features | None = None) -> None:
        """``features``: those of the same table, where others ask for them too."""
        if estimate not in BANDWIDTHS:
            raise unknown_name("estimate of expected-utility", estimate, BANDWIDTHS)
        self._features = features or Features(costs, utility)
        self._value = CANDIDATE_FEATURES.index(f"value_{estimate}")

    def decide(self, state: SystemState) -> Ints:
        _, candidates = self._features.of(state)
        return np.asarray(candidates[:, :, self._value].argmax(axis=1))
