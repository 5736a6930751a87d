"""A table with gated rows, from the shipped models of campus and their shipped times."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np

from controller.costs import CostTable
from controller.records import Decision
from runtime.bundles.bundle import open_bundle
from runtime.files.provenance import SHIPPED
from runtime.profiling.profile import load_costs

GATE = 0.96
SPLIT, GATED_SPLIT, LOCAL, GATED_LOCAL, GATED_STRIDE, FAST, OFFLOAD = range(7)
DECISIONS = (
    Decision("small", 384, 2, 3, "u4"),
    Decision("small", 384, 2, 3, "u4", gate=GATE),
    Decision("medium", 512, 2, 4, "none"),
    Decision("medium", 512, 2, 4, "none", gate=GATE),
    Decision("small", 512, 2, 4, "none", frame_stride=2, gate=GATE),
    Decision("nano", 256, 0, 2, "none"),
    Decision("small", 384, 2, 0, "jpeg10"),
)


@cache
def every_row() -> CostTable:
    """All rows of campus, with a gate and without."""
    return load_costs(open_bundle("campus"), Path(SHIPPED), gates=(GATE,))


@cache
def gated_costs(times: float = 1.0) -> CostTable:
    """The rows of ``DECISIONS``, on a device that is so many times slower (one that is emulated would add noise)."""
    every = every_row()
    costs = every.take(np.array([every.space.index(decision) for decision in DECISIONS]))
    assert costs.gates is not None
    paths = replace(costs.paths, head_s=times * costs.paths.head_s)
    return replace(costs, head_s=times * costs.head_s, gates=replace(costs.gates, paths=paths))
