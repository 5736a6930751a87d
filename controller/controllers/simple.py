"""The simple controllers: device-only, MEC-only, compressed offload, one fixed row, Edgent, Neurosurgeon, random.

All of them are without memory. Each prepares what depends on the cost table alone, and then decides a batch with a few
array operations.
"""

from __future__ import annotations

import numpy as np

from controller.costs import CostTable
from controller.errors import UsageError
from controller.predict.estimators import Estimator
from controller.predict.expectation import delay_frac, expectation, keeps_pace
from controller.predict.latency import predict
from controller.records import Bools, Ints, SystemState

#: Rows of one network whose accuracies differ by at most this count as the same configuration.
SAME_ACCURACY = 0.005
#: Weight of a second criterion that decides between equal latencies only.
TIE_S = 1e-9


class Memoryless:
    """A controller without memory."""

    def reset(self, rows: Bools) -> None:
        pass


class FixedRow(Memoryless):
    """``mec-only``, ``static-best`` and pinned decisions: the same row for every frame."""

    def __init__(self, name: str, row: int) -> None:
        self.name = name
        self.row = row

    def decide(self, state: SystemState) -> Ints:
        return np.full(state.batch, self.row)


class MostAccurate(Memoryless):
    """The most accurate configuration that is in time, at its fastest partition point and codec.

    This is Algorithm 1 of Edgent (arXiv 1806.07840). It goes through the configurations (a model at a resolution up to
    an exit branch) from the most accurate to the least, each at its best partition point. The first one that meets the
    deadline wins; if none does, the fastest row. ``edgent`` searches all rows, ``jpeg-offload`` the full offloads,
    ``device-only`` the rows without the MEC. With ``keep_pace`` a row must also be fast enough to be chosen for every
    frame.
    """

    def __init__(self, name: str, costs: CostTable, rows: Ints, estimator: Estimator, keep_pace: bool) -> None:
        self.name = name
        self._costs = costs
        self._estimator = estimator
        self._keep_pace = keep_pace
        self._rank = configuration_rank(costs)
        self._allowed = np.isin(np.arange(len(costs)), rows)

    def decide(self, state: SystemState) -> Ints:
        expected = expectation(self._costs, state, self._estimator)
        good = expected.fits & self._allowed
        if self._keep_pace:
            good &= keeps_pace(self._costs, state, expected)
        rank = np.where(good, self._rank, len(self._rank))
        best = (rank == rank.min(axis=1, keepdims=True)) & self._allowed  # every allowed row if none is good
        order = expected.total_s
        if self._costs.longest_stride > 1:  # of equally fast rows, the one that delays the next decision least
            order = order + TIE_S * delay_frac(self._costs, state, expected)
        return np.asarray(np.where(best, order, np.inf).argmin(axis=1))


class Neurosurgeon(Memoryless):
    """The full network of the most accurate model, cut where the predicted latency is least (Neurosurgeon, Kang et
    al., ASPLOS 2017)."""

    name = "neurosurgeon"

    def __init__(self, costs: CostTable, estimator: Estimator) -> None:
        self._rows = full_network_rows(costs)
        self._costs = costs.take(self._rows)
        self._estimator = estimator

    def decide(self, state: SystemState) -> Ints:
        total = predict(self._costs, state, self._estimator.of(state)[:, None]).total_s[:, :, 0]
        return np.asarray(self._rows[total.argmin(axis=1)])


class Random(Memoryless):
    """A uniformly random row."""

    name = "random"

    def __init__(self, costs: CostTable, seed: int) -> None:
        self._count = len(costs)
        self._rng = np.random.default_rng(seed)

    def decide(self, state: SystemState) -> Ints:
        return self._rng.integers(self._count, size=state.batch)


def by_accuracy(costs: CostTable, rows: Ints) -> Ints:
    """(n,) the rows sorted from most to least accurate per frame; ties by smaller payload, then shorter head."""
    return np.asarray(
        rows[np.lexsort((costs.head_s[rows], costs.payload_bytes[rows], -costs.accuracy_per_frame[rows]))]
    )


def device_only_rows(costs: CostTable) -> Ints:
    """(n,) rows that compute everything on the device."""
    return np.flatnonzero(costs.space.device_only)


def full_offload_rows(costs: CostTable) -> Ints:
    """(n,) rows that send the input itself; UsageError when the table has none."""
    rows = np.flatnonzero(costs.space.full_offload)
    if not len(rows):
        raise UsageError("got a decision table without a full offload; expected a decision with partition_point 0")
    return rows


def raw_offload_row(costs: CostTable) -> int:
    """The most accurate network, all of it on the MEC, with the least compressed input of the table."""
    rows = full_offload_rows(costs)
    rows = same_network_rows(costs, rows, int(by_accuracy(costs, rows)[0]))
    return int(rows[costs.payload_bytes[rows].argmax()])


def full_network_rows(costs: CostTable) -> Ints:
    """(n,) every partition point of the most accurate network."""
    rows = np.arange(len(costs))
    return same_network_rows(costs, rows, int(by_accuracy(costs, rows)[0]))


def same_network_rows(costs: CostTable, rows: Ints, like: int) -> Ints:
    """Of ``rows``, those with the model, resolution, exit branch, frame stride and gate of row ``like`` whose accuracy
    is at most SAME_ACCURACY lower."""

    def network(row: int) -> tuple[str, int, int, int, float]:
        d = costs.space.decisions[row]
        return d.model, d.resolution_px, d.exit_branch, d.frame_stride, d.gate

    same = np.array([network(row) == network(like) for row in rows], dtype=np.bool_)
    return np.asarray(rows[same & (costs.accuracy_per_frame[rows] >= costs.accuracy_per_frame[like] - SAME_ACCURACY)])


def configuration_rank(costs: CostTable) -> Ints:
    """(C,) rank of each row's configuration by accuracy: 0 for the most accurate one.

    Rows that differ in partition point or codec, and in accuracy by at most SAME_ACCURACY, are one configuration.
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
