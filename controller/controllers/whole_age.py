"""Lets a controller know how old the answer is that a cropped frame refers to (``controller.crops``)."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from controller.controllers.base import Controller
from controller.controllers.simple import Memoryless
from controller.costs import CostTable
from controller.crops import WHOLE
from controller.records import Ints, SystemState


class ByWholeAge(Memoryless):
    """One controller without memory for each age: each has the cost table of that age. Where the age is not known, the
    one of the steady state decides."""

    def __init__(self, make: Callable[[CostTable], Controller], costs: CostTable) -> None:
        self._steady, self._whole = make(costs), make(costs.at_whole_age[WHOLE])
        self._aged = [make(table) for table in costs.at_whole_age[:WHOLE]]
        assert costs.crops is not None, "a table with cropped rows"
        self._crops, self.name = costs.crops, self._steady.name

    def decide(self, state: SystemState) -> Ints:
        if state.whole_age is None:
            return self._steady.decide(state)
        rows, columns = np.zeros(state.batch, np.int64), self._crops.column(state.whole_age)
        for column in np.unique(columns).tolist():
            which = np.flatnonzero(columns == column)
            controller = self._whole if column == WHOLE else self._aged[column]
            rows[which] = controller.decide(state.take(which))
        return rows
