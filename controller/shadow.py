"""Shadow mode: what a candidate would have decided, and an estimate of what that would have been worth.

The candidate sees the states that the active controller sees, and never acts. For each of them the latency model and
the recorded accuracy say what the row of each of the two is worth
(``controller.predict.expectation.expected_utility``). The mean difference is the estimate.

The model is wrong in places, so what it says of the active controller's own rows stands beside what those really got.
Another error cannot be seen from here: a candidate that acts comes to other states. Its rows fill the uplink or leave
it idle, delay the next frames or do not, and only a row that sends shows bandwidth. docs/policy.md has the estimates
beside the truth of the twin. (The ``value`` feature, which charges delays, was tried instead: its penalty of a delay
is far from what delays cost, and estimates had the wrong sign.)
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from controller.controllers.base import Controller
from controller.costs import CostTable
from controller.predict.estimators import Estimator
from controller.predict.expectation import expectation, expected_utility, over_paths
from controller.records import Bools, Floats, Ints, SystemState
from controller.utility import Utility

#: Decisions that count as one observation of the mean: neighbours are much alike.
BLOCK = 50
#: Half the width of an interval with 95 % in standard errors.
_TWO_SIDED_95 = 1.96


class Shadow:
    """Owns the candidate, and sums over its decisions beside those of the active controller."""

    def __init__(self, name: str, candidate: Controller, costs: CostTable, utility: Utility) -> None:
        self.name, self._candidate = name, candidate
        self._costs, self._utility, self._estimator = costs, utility, Estimator()
        self.restart(candidate)

    def restart(self, candidate: Controller | None = None) -> None:
        """Begin all sums anew, as when another active controller takes over. ``candidate``: in place of the one so
        far."""
        self._candidate = candidate or self._candidate
        self.decisions = self.equal = 0
        self._frames = self._active = self._other = 0.0  # weighted by the frames that a decision covers
        self._judged, self._real = 0, 0.0  # frames with a truth, and the sum of their utility
        self._block: list[float] = []  # differences of the block that is not full yet
        self._blocks: list[float] = [0.0, 0.0, 0.0]  # count, sum and sum of squares of the blocks' means

    def reset(self, rows: Bools) -> None:
        """The candidate forgets the past of these rows (B,)."""
        self._candidate.reset(rows)

    def look(self, state: SystemState, active: Ints, counted: Bools | None = None) -> None:
        """Let the candidate decide states (B,) for which ``active`` was decided; only those ``counted`` are."""
        other = self._candidate.decide(state)
        values = self.values(state)
        each, which = np.arange(len(active)), slice(None) if counted is None else counted
        one, two = values[each, active][which], values[each, other][which]
        weight = self._costs.stride[active][which]
        self.decisions += len(one)
        self.equal += int((active == other)[which].sum())
        self._frames += float(weight.sum())
        self._active += float((weight * one).sum())
        self._other += float((weight * two).sum())
        self._block += (two - one).tolist()
        while len(self._block) >= BLOCK:
            mean = math.fsum(self._block[:BLOCK]) / BLOCK
            self._block = self._block[BLOCK:]
            self._blocks = [self._blocks[0] + 1, self._blocks[1] + mean, self._blocks[2] + mean * mean]

    def values(self, state: SystemState) -> Floats:
        """(B, C) utility per frame that the model expects of each row."""

        def of(costs: CostTable) -> Floats:
            return expected_utility(costs, state, self._utility, expectation(costs, state, self._estimator))

        return over_paths(self._costs, of)

    def ended(self, utility: float | None) -> None:
        """A frame of the active controller has ended with this utility; None where no truth is known."""
        if utility is not None:
            self._judged += 1
            self._real += utility

    def notes(self) -> dict[str, Any]:
        """The share of equal decisions, and utilities per frame by the model; before the first decision only
        that there was none."""
        if not self.decisions:
            return {"controller": self.name, "decisions": 0}
        active, other = self._active / self._frames, self._other / self._frames
        return {
            "controller": self.name,
            "decisions": self.decisions,
            "equal_frac": self.equal / self.decisions,
            "modelled_utility": other,
            "modelled_utility_of_active": active,
            "real_utility_of_active": self._real / self._judged if self._judged else None,
            "modelled_difference": other - active,
            "modelled_difference_error": self._error(),
        }

    def _error(self) -> float | None:
        """Half the width of the 95 % interval of the mean difference, from means of blocks; None with too few."""
        count, total, squares = self._blocks
        if count < 2:
            return None
        variance = max(squares - total * total / count, 0.0) / (count - 1)
        return _TWO_SIDED_95 * math.sqrt(variance / count)
