"""The simple strategies of the field: device-only, MEC-only, compressed offload, one fixed row, Neurosurgeon, random.

None of them remembers anything. Each prepares what only depends on the cost table and then decides a batch with a
few array operations.
"""

from __future__ import annotations

import numpy as np

from controller.costs import CostTable
from controller.errors import UsageError
from controller.estimators import Estimator
from controller.latency import predict
from controller.outlook import first_true_or, keeps_pace, outlook
from controller.records import Bools, Ints, SystemState

#: Codecs that lose no more accuracy than this send the same thing, for a strategy that knows one network only.
SAME_ACCURACY = 0.005
RAW = "raw"  # the codec that does not compress


class Memoryless:
    """A controller that has nothing to forget."""

    def reset(self, rows: Bools) -> None:
        pass


class FixedRow(Memoryless):
    """``mec-only`` and ``static-best``: the same row for every frame."""

    def __init__(self, name: str, row: int) -> None:
        self.name = name
        self.row = row

    def decide(self, state: SystemState) -> Ints:
        return np.full(state.batch, self.row)


class MostAccurate(Memoryless):
    """The most accurate of some rows that is predicted to be in time; if none is, the fastest of them.

    ``device-only`` over the device-only rows, ``jpeg-offload`` over the full offloads. With ``keep_pace`` a row must
    also be quick enough to be chosen for every frame.
    """

    def __init__(self, name: str, costs: CostTable, rows: Ints, estimator: Estimator, keep_pace: bool) -> None:
        self.name = name
        self._costs = costs
        self._rows = by_accuracy(costs, rows)
        self._estimator = estimator
        self._keep_pace = keep_pace

    def decide(self, state: SystemState) -> Ints:
        seen = outlook(self._costs, state, self._estimator.of(state))
        good = seen.fits & keeps_pace(state, seen) if self._keep_pace else seen.fits
        fastest = seen.total_s[:, self._rows].argmin(axis=1)
        return np.asarray(self._rows[first_true_or(fastest, good[:, self._rows])])


class Neurosurgeon(Memoryless):
    """The full network of the most accurate model, cut where the predicted latency is least (ASPLOS 2017)."""

    name = "neurosurgeon"

    def __init__(self, costs: CostTable, estimator: Estimator) -> None:
        self._rows = full_network_rows(costs)
        self._costs = costs.take(self._rows)
        self._estimator = estimator

    def decide(self, state: SystemState) -> Ints:
        total = predict(self._costs, state, self._estimator.of(state)[:, None]).total_s[:, :, 0]
        return np.asarray(self._rows[total.argmin(axis=1)])


class Random(Memoryless):
    """Any legal row."""

    name = "random"

    def __init__(self, costs: CostTable, seed: int) -> None:
        self._count = len(costs)
        self._rng = np.random.default_rng(seed)

    def decide(self, state: SystemState) -> Ints:
        return self._rng.integers(self._count, size=state.batch)


def by_accuracy(costs: CostTable, rows: Ints) -> Ints:
    """The rows from the most accurate to the least; among equals the smaller payload first, then the shorter head."""
    return np.asarray(rows[np.lexsort((costs.head_s[rows], costs.payload_bytes[rows], -costs.accuracy[rows]))])


def device_only_rows(costs: CostTable) -> Ints:
    return np.flatnonzero(costs.space.device_only)


def full_offload_rows(costs: CostTable) -> Ints:
    """Rows that send the input itself; UsageError when the table has none."""
    rows = np.flatnonzero(costs.space.full_offload)
    if not len(rows):
        raise UsageError("no decision of this table offloads the whole network; expected one with partition_point 0")
    return rows


def compressed_offload_rows(costs: CostTable) -> Ints:
    """Full offloads whose input is compressed; all full offloads where the table compresses none."""
    rows = full_offload_rows(costs)
    compressed = [row for row in rows if costs.space.decisions[row].payload != RAW]
    return np.array(compressed, dtype=np.int64) if compressed else rows


def raw_offload_row(costs: CostTable) -> int:
    """The most accurate network, wholly on the MEC, with the input as little compressed as the table knows."""
    rows = full_offload_rows(costs)
    rows = same_network_rows(costs, rows, int(by_accuracy(costs, rows)[0]))
    return int(rows[costs.payload_bytes[rows].argmax()])


def full_network_rows(costs: CostTable) -> Ints:
    """Every cut of the most accurate network."""
    rows = np.arange(len(costs))
    return same_network_rows(costs, rows, int(by_accuracy(costs, rows)[0]))


def same_network_rows(costs: CostTable, rows: Ints, like: int) -> Ints:
    """Of ``rows``, those with the model, resolution and exit of row ``like`` that are (nearly) as accurate."""

    def network(row: int) -> tuple[str, int, int]:
        decision = costs.space.decisions[row]
        return decision.model, decision.resolution_px, decision.exit_branch

    same = np.array([network(row) == network(like) for row in rows], dtype=np.bool_)
    return np.asarray(rows[same & (costs.accuracy[rows] >= costs.accuracy[like] - SAME_ACCURACY)])
