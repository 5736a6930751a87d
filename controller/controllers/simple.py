"""The simple strategies of the field: device-only, MEC-only, compressed offload, one fixed row, Neurosurgeon, random.

None of them remembers anything. Each prepares what only depends on the cost table and then decides a batch with a
few array operations.
"""

from __future__ import annotations

import numpy as np

from controller.costs import CostTable
from controller.errors import UsageError
from controller.predict.estimators import Estimator
from controller.predict.expectation import delay_frac, expectation, keeps_pace
from controller.predict.latency import predict
from controller.records import Bools, Ints, SystemState

#: Codecs that lose no more accuracy than this send the same thing, for a strategy that knows one network only.
SAME_ACCURACY = 0.005
#: Decides between equal latencies and nothing else.
TIE_S = 1e-9


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
    """The most accurate configuration that some cut and codec can bring in time, by the quickest of them.

    This is Algorithm 1 of Edgent (arXiv 1806.07840): configurations (a model at a resolution up to an exit) from the
    most accurate to the least, each at its best partition point, and the first that meets the deadline wins; if none
    does, the fastest row is taken. ``edgent`` searches all rows, ``jpeg-offload`` the full offloads (in the encoding
    that is quickest under way), ``device-only`` the rows without the MEC. With ``keep_pace`` a row must also be quick
    enough to be chosen for every frame.
    """

    def __init__(self, name: str, costs: CostTable, rows: Ints, estimator: Estimator, keep_pace: bool) -> None:
        self.name = name
        self._costs = costs
        self._estimator = estimator
        self._keep_pace = keep_pace
        self._rank = configuration_rank(costs)
        self._allowed = np.isin(np.arange(len(costs)), rows)

    def decide(self, state: SystemState) -> Ints:
        seen = expectation(self._costs, state, self._estimator)
        good = seen.fits & self._allowed
        if self._keep_pace:
            good &= keeps_pace(self._costs, state, seen)
        rank = np.where(good, self._rank, len(self._rank))
        best = (rank == rank.min(axis=1, keepdims=True)) & self._allowed  # every allowed row, where none is good
        order = seen.total_s
        if self._costs.longest_interval > 1:  # of rows that are equally quick, the one that others wait for least
            order = order + TIE_S * delay_frac(self._costs, state, seen)
        return np.asarray(np.where(best, order, np.inf).argmin(axis=1))


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
    """The rows from the most accurate to the least; among equals the smaller payload first, then the shorter head.

    Accuracy is per frame that a row answers, wherever there are frames that are not run.
    """
    return np.asarray(rows[np.lexsort((costs.head_s[rows], costs.payload_bytes[rows], -costs.worth[rows]))])


def device_only_rows(costs: CostTable) -> Ints:
    return np.flatnonzero(costs.space.device_only)


def full_offload_rows(costs: CostTable) -> Ints:
    """Rows that send the input itself; UsageError when the table has none."""
    rows = np.flatnonzero(costs.space.full_offload)
    if not len(rows):
        raise UsageError("no decision of this table offloads the whole network; expected one with partition_point 0")
    return rows


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
    """Of ``rows``, those with the model, resolution, exit and frame interval of row ``like`` that are (nearly) as
    accurate."""

    def network(row: int) -> tuple[str, int, int, int]:
        decision = costs.space.decisions[row]
        return decision.model, decision.resolution_px, decision.exit_branch, decision.frame_stride

    same = np.array([network(row) == network(like) for row in rows], dtype=np.bool_)
    return np.asarray(rows[same & (costs.worth[rows] >= costs.worth[like] - SAME_ACCURACY)])


def configuration_rank(costs: CostTable) -> Ints:
    """(C,) 0 for the rows of the most accurate configuration, 1 for those of the next, and so on.

    A codec that costs no more than SAME_ACCURACY does not make another configuration.
    """
    rank = np.empty(len(costs), dtype=np.int64)
    left = by_accuracy(costs, np.arange(len(costs)))
    count = 0
    while len(left):
        together = same_network_rows(costs, left, int(left[0]))
        rank[together] = count
        left = left[~np.isin(left, together)]
        count += 1
    return rank
