"""The features of a batch, compiled: ``controller.features.fast.Features`` uses it from the import of a twin on."""

from __future__ import annotations

from typing import Any

import numpy as np

from controller.features.fast import Features
from controller.features.scalar import FeatureTable, fill_features
from controller.records import Float32s, Ints, SystemState
from envs.twin.compiled import compiled
from envs.twin.observe import SEEN


@compiled
def fill_batch(t: FeatureTable, seen: Any, age: Ints, context: Float32s, candidates: Float32s) -> None:
    """Features of SEEN (B,) and ages of references (B, streams) into (B, D) and (B, C, F)."""
    for b in range(len(seen)):
        fill_features(t, seen[b], age[b], context[b], candidates[b])


def _fill(t: FeatureTable, state: SystemState, context: Float32s, candidates: Float32s) -> None:
    seen = np.empty(state.batch, SEEN)
    for name in SEEN.names or ():
        known = getattr(state, name)
        seen[name] = np.nan if known is None else known
    age = np.zeros((state.batch, 0), np.int64) if state.reference_age is None else state.reference_age
    fill_batch(t, seen, np.ascontiguousarray(age, np.int64), context, candidates)


def install() -> None:
    """Let every ``Features`` of this process compute batches so."""
    Features.fill_batch = staticmethod(_fill)
