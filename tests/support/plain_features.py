"""The features as their formula says, state by state, by Python itself."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np

from controller.costs import CostTable
from controller.features.scalar import feature_table, fill_features
from controller.features.schema import CANDIDATE_FEATURES, CONTEXT_FEATURES
from controller.records import Float32s, SystemState
from controller.utility import Utility
from envs.twin.observe import SEEN


def plain_features(costs: CostTable, utility: Utility, state: SystemState) -> tuple[Float32s, Float32s]:
    """Context (B, D) and candidates (B, C, F)."""
    table = feature_table(costs, utility)
    context = np.empty((state.batch, len(CONTEXT_FEATURES)), np.float32)
    candidates = np.empty((state.batch, len(costs.paths), len(CANDIDATE_FEATURES)), np.float32)
    for b in range(state.batch):
        one = SimpleNamespace(**{name: getattr(state, name)[b] for name in SEEN.names or ()})
        age = np.zeros(0, np.int64) if state.reference_age is None else state.reference_age[b]
        fill_features(table, one, age, context[b], candidates[b])
    return context, candidates[:, : len(costs)]
