"""How long an emulated device takes for a head.

A slow device is emulated on a fast machine: the computation is real, then the device idles until the profiled time x
slowdown / (1 - load of that second) has passed, times some random noise, because no two heads take equally long. Only
the loop's idling uses this. What a device plans rests on times that it measured.
"""

from __future__ import annotations

import math

import numpy as np

from controller.costs import CostTable
from controller.scenario import HEAD_NOISE_FRAC, LOAD_STEP_S, Scenario


class Emulation:
    """Owns the random noise. Times are seconds since the first capture."""

    def __init__(self, costs: CostTable, scenario: Scenario) -> None:
        self._head_s = costs.head_s
        self._slowdown = scenario.device_slowdown
        self._load_frac = scenario.device_load()
        self._noise = np.random.default_rng(scenario.seed)

    def slowdown_at(self, elapsed_s: float) -> float:
        """Device time / profiled time at a moment."""
        second = min(max(int(elapsed_s / LOAD_STEP_S), 0), len(self._load_frac) - 1)
        return self._slowdown / (1.0 - float(self._load_frac[second]))

    def head_s(self, row: int, elapsed_s: float) -> float:
        """How long a head takes that starts at a moment; 0 when the machine is used as it is."""
        slowdown = self.slowdown_at(elapsed_s)
        if slowdown <= 1.0:
            return 0.0
        return float(self._head_s[row]) * slowdown * math.exp(HEAD_NOISE_FRAC * self._noise.standard_normal())
