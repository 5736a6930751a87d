"""The ranges of the context features that a policy was trained on, and whether a state lies within them.

A network says nothing sensible about inputs that it never saw. Training plays a range of conditions; a device that
serves may meet others: a deadline of a minute, a link that was away for an hour. A policy file states the least and
the largest value of each context feature (``runtime.files.policy_file``).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np

from controller.errors import UsageError
from controller.features.schema import FEATURE_SCHEMA
from controller.records import Bools, Float32s

#: By name of the context feature: the least and the largest value in training.
Ranges = Mapping[str, tuple[float, float]]

NO_RANGES: Ranges = MappingProxyType({})
#: So much of its width may a feature leave its range by. Features are relative, so that a policy may serve other
#: devices and deadlines than it was trained on. One width outside, it was still within 0.02 of the utility of
#: expected-utility, and often above it (docs/policy.md); an absurd input lies further out.
MARGIN_FRAC = 1.0


@dataclass(frozen=True)
class Bounds:
    """Bounds (D,) of the context features, in the order of the schema; infinite where nothing is known."""

    low: Float32s
    high: Float32s

    def outside(self, context: Float32s) -> Bools:
        """(B, D) features that lie outside, of a context (B, D). One that is not a number does."""
        return np.asarray(~((context >= self.low) & (context <= self.high)))


def bounds_of(ranges: Ranges) -> Bounds:
    """The bounds for the ranges that a policy file states; UsageError for a feature that does not exist.

    A feature that never changed in training belongs to a part that was off then, such as an input filter: whether it
    is on now is the user's choice and nothing to guard against, so that it has no bounds."""
    low, high = (np.full(len(FEATURE_SCHEMA.context), side * np.inf, np.float32) for side in (-1.0, 1.0))
    for name, (least, most) in ranges.items():
        if name not in FEATURE_SCHEMA.context:
            raise UsageError(f"ranges of a policy: got {name!r}; expected names of context features")
        if most > least:
            place, margin = FEATURE_SCHEMA.context.index(name), MARGIN_FRAC * (most - least)
            low[place], high[place] = least - margin, most + margin
    return Bounds(low, high)


def ranges_of(least: Float32s, most: Float32s) -> dict[str, tuple[float, float]]:
    """The ranges for the least and the largest context (D,) that was seen."""
    pairs = zip(least.tolist(), most.tolist(), strict=True)
    return dict(zip(FEATURE_SCHEMA.context, pairs, strict=True))
