"""How long does the emulated device take, and when must it fall back?

A weak device is emulated on a strong machine: the computation is real, then the device idles until the profiled time x
slowdown / (1 - load of the moment) has passed, and somewhat more or less, for no head takes as long as the last one.
Its plans rest on what it has measured, never on the emulation.
"""

from __future__ import annotations

import math

import numpy as np

from controller import timeline as formulas
from controller.costs import CostTable
from controller.scenario import HEAD_NOISE_FRAC, LOAD_STEP_S, Scenario

#: Of an overrun that is longer than any expected, so much is believed; one that does not come again is forgotten over
#: some dozens of fallbacks. It never takes more of the deadline than this.
_BELIEVED_FRAC = 0.5
_KEPT_FRAC = 0.98
_MOST_OVERRUN_FRAC = 0.25


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


class LastMoment:
    """By when must a fallback begin, so that the fastest local row ends in time?

    A fallback takes more than its head where the machine is busy, or where a stage of the head that it preempts must
    end first. How much more is learnt from those before. Owns that estimate.
    """

    def __init__(self, fastest_s: float) -> None:
        self._fastest_s = fastest_s
        self._overrun_s = 0.0

    def reserve_s(self, slowdown: float) -> float:
        """How long before the deadline it must begin."""
        return float(formulas.fallback_reserve_s(np.array(self._fastest_s * slowdown))) + self._overrun_s

    def learn(self, took_s: float, slowdown: float, deadline_s: float) -> None:
        """One that was due at a moment ended ``took_s`` later; one that was not due yet tells nothing."""
        if took_s == -math.inf:
            return
        overrun_s = took_s - formulas.FALLBACK_MARGIN * self._fastest_s * slowdown
        if overrun_s > self._overrun_s:
            most_s = _MOST_OVERRUN_FRAC * deadline_s
            self._overrun_s = min(self._overrun_s + _BELIEVED_FRAC * (overrun_s - self._overrun_s), most_s)
        else:
            self._overrun_s *= _KEPT_FRAC

    def missed(self, late_s: float, slowdown: float, deadline_s: float) -> None:
        """The machine let one begin so late that it was not tried at all."""
        self.learn(late_s + self._fastest_s * slowdown, slowdown, deadline_s)
