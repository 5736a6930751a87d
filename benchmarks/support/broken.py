"""Policies that are broken in the ways that a guard must notice."""

from __future__ import annotations

from dataclasses import fields

import numpy as np

from controller.controllers.base import Controller
from controller.controllers.learned import FrozenPolicy
from controller.costs import CostTable
from controller.features.fast import Features
from controller.records import Bools, Float32s, Ints, SystemState
from controller.utility import Utility


def noised(policy: FrozenPolicy, strength: float, seed: int) -> FrozenPolicy:
    """The policy with normal noise on all weights, of ``strength`` times the deviation of each tensor."""
    rng = np.random.default_rng(seed)

    def disturbed(weights: Float32s) -> Float32s:
        return (weights + strength * weights.std() * rng.standard_normal(weights.shape)).astype(np.float32)

    return FrozenPolicy(**{field.name: disturbed(getattr(policy, field.name)) for field in fields(FrozenPolicy)})


class FrozenFeatures(Features):
    """The features of a policy whose input no longer moves after the first ``states``; the device sees the truth."""

    def __init__(self, costs: CostTable, utility: Utility, states: int) -> None:
        super().__init__(costs, utility)
        self._left = states
        self._last: tuple[Float32s, Float32s] | None = None

    def of(self, state: SystemState) -> tuple[Float32s, Float32s]:
        if self._left > 0 or self._last is None:
            self._left -= 1
            self._last = super().of(state)
        return self._last


class Stuck:
    """A controller on a device whose telemetry no longer moves after the first ``states``."""

    def __init__(self, controller: Controller, states: int) -> None:
        self.name, self._controller, self._left = controller.name, controller, states
        self._last: SystemState | None = None

    def reset(self, rows: Bools) -> None:
        self._controller.reset(rows)

    def decide(self, state: SystemState) -> Ints:
        if self._left > 0 or self._last is None:
            self._left, self._last = self._left - 1, state
        return self._controller.decide(self._last)
