"""What does each decision cost, before any condition of the moment is applied?

A ``CostTable`` joins a DecisionSpace with what a profile measured. Times are those of the profiled machine at
slowdown 1; a controller scales them with the slowdown it observes.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from controller.records import Floats, Ints
from controller.space import DecisionSpace


@dataclass(frozen=True)
class CostTable:
    """Measured costs of the rows of ``space``; every array is (C,) float64."""

    space: DecisionSpace
    accuracy: Floats  # expected score on the validation split
    head_s: Floats  # device: resize, head segment, encoding (and the exit head when device-only)
    payload_bytes: Floats  # mean over the validation split; 0 when device-only
    payload_std_bytes: Floats
    mec_s: Floats  # MEC: decoding, tail segment and exit head; 0 when device-only
    #: What one request of another device costs the MEC (load generator and twin alike): the full offload of the
    #: heaviest model, mean over its rows. Derived here, and kept by ``take``, so that a choice of candidates
    #: does not change the neighbours.
    neighbour_mec_s: float = 0.0

    def __post_init__(self) -> None:
        if not self.neighbour_mec_s:
            object.__setattr__(self, "neighbour_mec_s", _heaviest_full_offload_s(self.space, self.mec_s))

    def __len__(self) -> int:
        return len(self.space)

    def take(self, rows: Ints) -> CostTable:
        """The table of a smaller space."""
        return CostTable(
            self.space.take(rows),
            self.accuracy[rows],
            self.head_s[rows],
            self.payload_bytes[rows],
            self.payload_std_bytes[rows],
            self.mec_s[rows],
            self.neighbour_mec_s,
        )

    @cached_property
    def local_frontier(self) -> Ints:
        """Device-only rows that no other device-only row beats in both time and accuracy, fastest first."""
        rows = np.flatnonzero(self.space.device_only)
        rows = rows[np.lexsort((-self.accuracy[rows], self.head_s[rows]))]
        best, kept = -np.inf, []
        for row in rows:
            if self.accuracy[row] > best:
                best = self.accuracy[row]
                kept.append(int(row))
        return np.array(kept, dtype=np.int64)


def _heaviest_full_offload_s(space: DecisionSpace, mec_s: Floats) -> float:
    """Largest mean over models of the MEC's time for a full offload; 0 when nothing can be offloaded whole."""
    model = np.array([decision.model for decision in space.decisions])
    models = np.unique(model[space.full_offload])
    return max((float(mec_s[space.full_offload & (model == name)].mean()) for name in models), default=0.0)
