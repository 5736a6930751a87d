"""How long does the emulated device take, and when must it fall back to what?

A weak device is emulated on a strong machine: the computation is real, then the device idles until the profiled time x
slowdown / (1 - load of the moment) has passed, and somewhat more or less, for no head takes as long as the last one.
Its plans rest on what it has measured, never on the emulation.
"""

from __future__ import annotations

import math

import numpy as np

from controller import telemetry as formulas
from controller.costs import CostTable
from controller.scenario import HEAD_NOISE_FRAC, LOAD_STEP_S, Scenario


class Pace:
    """What the emulation says. Times are seconds since the first capture."""

    def __init__(self, costs: CostTable, scenario: Scenario) -> None:
        self._head_s = costs.head_s
        self._slowdown = scenario.device_slowdown
        self._load_frac = scenario.device_load()
        self._luck = np.random.default_rng(scenario.seed)

    def slowdown_at(self, elapsed_s: float) -> float:
        """Device time / profiled time at a moment."""
        second = min(max(int(elapsed_s / LOAD_STEP_S), 0), len(self._load_frac) - 1)
        return self._slowdown / (1.0 - float(self._load_frac[second]))

    def head_s(self, row: int, elapsed_s: float) -> float:
        """How long the next head takes, if it starts at a moment; 0 when the machine is used as it is."""
        slowdown = self.slowdown_at(elapsed_s)
        if slowdown <= 1.0:
            return 0.0
        return float(self._head_s[row]) * slowdown * math.exp(HEAD_NOISE_FRAC * self._luck.standard_normal())


class FallbackPlan:
    """What a device knows of its own answers: rows of the local frontier, fastest first."""

    def __init__(self, costs: CostTable) -> None:
        self._rows = costs.local_frontier
        self._head_s = costs.head_s[self._rows]

    @property
    def possible(self) -> bool:
        return len(self._rows) > 0

    def latest_start_s(self, deadline_s: float, slowdown: float) -> float:
        """By when a fallback must start to be in time for a deadline (a point in time); never, without local rows."""
        if not self.possible:
            return math.inf
        return deadline_s - float(formulas.fallback_reserve_s(self._head_s[0] * slowdown))

    def row(self, left_s: float, slowdown: float) -> int:
        """The most accurate row that fits what is left, else the fastest."""
        fits = formulas.FALLBACK_MARGIN * self._head_s * slowdown <= left_s
        return int(self._rows[max(int(fits.sum()) - 1, 0)])
