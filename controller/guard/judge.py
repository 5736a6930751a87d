"""What the guard knows of one decision: what the policy and the classical controller chose, and what the model
says.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from controller.controllers.base import Controller
from controller.features.fast import Features
from controller.features.schema import CANDIDATE_FEATURES, FEATURE_SCHEMA
from controller.guard.ranges import Bounds
from controller.records import Bools, Float32s, Floats, Ints, SystemState

_ACCURACY, _ENERGY = CANDIDATE_FEATURES.index("accuracy"), CANDIDATE_FEATURES.index("energy")


class Verdict(NamedTuple):
    """(B,) each, (B, D) ``outside``."""

    policy: Ints  # row
    classical: Ints  # row
    outside: Bools  # context features outside the ranges of the training
    worth: Floats  # utility of the policy's choice if it is in time
    expected: Floats  # utility that is expected of the classical choice, 0 or more
    behind: Floats  # the same without a bound, less that of the policy's choice
    fails: Floats  # chance that the classical choice does not end as decided
    error: str = ""  # what the policy raised in place of a choice; ``policy`` is then the classical one

    @property
    def known(self) -> Bools:
        """(B,) whether every figure is finite: one that is not says nothing, and must not enter a sum."""
        return np.asarray(np.isfinite([self.worth, self.expected, self.behind, self.fails]).all(axis=0))


class Judge:
    """Compares two controllers over one cost table."""

    def __init__(self, policy: Controller, classical: Controller, features: Features, bounds: Bounds, estimate: str):
        """``estimate``: the bandwidths under which values are compared, one of
        ``controller.features.schema.BANDWIDTHS``."""
        self._policy, self._classical, self._features, self._bounds = policy, classical, features, bounds
        self._value = CANDIDATE_FEATURES.index(f"value_{estimate}")
        self._chance = CANDIDATE_FEATURES.index(f"chance_{estimate}")
        self._best = float(features.costs.accuracy_per_frame.max())

    def reset(self, rows: Bools) -> None:
        """Both controllers forget the past of these rows (B,)."""
        self._policy.reset(rows)
        self._classical.reset(rows)

    def of(self, state: SystemState) -> Verdict:
        """The verdict on a state. Whatever the policy raises is in it: the classical controller then decides."""
        context, candidates = self._features.of(state)
        classical, error = self._classical.decide(state), ""
        try:
            policy = self._policy.decide(state)
        except Exception as raised:  # noqa: BLE001 - a policy is not trusted: it must not end its guard
            policy, error = classical, f"{type(raised).__name__}: {raised}"
        one, other = (_rows(candidates, rows) for rows in (policy, classical))
        expected = gain(other[:, self._value])
        return Verdict(
            policy,
            classical,
            self._bounds.outside(context),
            self._best + 0.1 * (one[:, _ACCURACY] - one[:, _ENERGY]),
            np.maximum(self._best + expected, 0.0),
            _difference(expected, gain(one[:, self._value])),
            1.0 - other[:, self._chance],
            error,
        )


def gain(value: Floats) -> Floats:
    """(B,) expected utility relative to the best accuracy of the table, from the squashed feature
    (``controller.features.scalar``); minus infinity at its lower bound."""
    with np.errstate(divide="ignore"):
        return np.asarray(0.1 * value / (1.0 - value / FEATURE_SCHEMA.low))


def _difference(one: Floats, other: Floats) -> Floats:
    """(B,) difference; not a number where both are infinite."""
    with np.errstate(invalid="ignore"):
        return np.asarray(one - other)


def _rows(candidates: Float32s, rows: Ints) -> Floats:
    """(B, F) features of one candidate of each state, in double precision."""
    return candidates[np.arange(len(rows)), rows].astype(np.float64)
