"""The cost table: which rows are worth choosing from, and which answer alone."""

from __future__ import annotations

import numpy as np
import pytest

from controller.costs import CostTable
from controller.records import Decision
from controller.space import NO_PAYLOAD, DecisionSpace

#: The tolerances that `undominated` documents: accuracy, device time, bytes and MEC time.
SLACK = 1e-9


def make_table(accuracy: list[float], head: list[float], payload: list[float], mec: list[float]) -> CostTable:
    """One row per entry; a row that sends nothing is device-only."""
    decisions = tuple(
        Decision("m", 28, row, 2 if sent == 0 else 1, NO_PAYLOAD if sent == 0 else "u8")
        for row, sent in enumerate(payload)
    )
    count = len(decisions)
    space = DecisionSpace(decisions, np.full(count, 2), np.arange(count))
    sent = np.array(payload)
    return CostTable(space, np.array(accuracy), np.array(head), sent, 0.1 * sent, np.array(mec))


def random_table(seed: int, count: int = 300) -> CostTable:
    """Costs as in a real bundle: what is more accurate tends to cost more, with exceptions."""
    rng = np.random.default_rng(seed)
    local = rng.random(count) < 0.2
    work = rng.lognormal(0, 1, count) * 1e-3
    cut = rng.random(count)
    accuracy = np.clip(0.95 - 0.15 * np.exp(-work / 1e-3) + 0.02 * rng.standard_normal(count), 0, 1)
    return make_table(
        accuracy.tolist(),
        np.where(local, work, work * cut).tolist(),
        np.where(local, 0, rng.lognormal(6, 1, count)).tolist(),
        np.where(local, 0, work * (1 - cut)).tolist(),
    )


def tolerances(table: CostTable) -> np.ndarray:
    return np.array([0.001, 0.05 * np.median(table.head_s), 8.0, 0.05 * np.median(table.mec_s)])


def costs_of(table: CostTable) -> np.ndarray:
    return np.stack([1 - table.accuracy, table.head_s, table.payload_bytes, table.mec_s], axis=1)


def test_the_local_frontier_is_device_only_fastest_first_and_ever_more_accurate() -> None:
    table = make_table(
        accuracy=[0.8, 0.9, 0.85, 0.9, 0.99],
        head=[1e-3, 3e-3, 2e-3, 2.5e-3, 1e-4],
        payload=[0, 0, 0, 0, 500],
        mec=[0, 0, 0, 0, 1e-3],
    )
    assert table.local_frontier.tolist() == [0, 2, 3]


def test_of_equally_quick_local_rows_the_frontier_has_the_more_accurate() -> None:
    table = make_table([0.8, 0.9], [1e-3, 1e-3], [0, 0], [0, 0])
    assert table.local_frontier.tolist() == [1]


@pytest.mark.parametrize("seed", range(5))
def test_no_local_row_beats_a_row_of_the_frontier(seed: int) -> None:
    table = random_table(seed)
    local = np.flatnonzero(table.space.device_only)
    for row in table.local_frontier:
        better = (table.accuracy[local] >= table.accuracy[row]) & (table.head_s[local] <= table.head_s[row])
        assert set(local[better]) == {row}


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("limit", [24, 32, 64])
def test_undominated_respects_its_limit_and_the_order_of_the_table(seed: int, limit: int) -> None:
    rows = random_table(seed).undominated(limit)
    assert 1 <= len(rows) <= limit
    assert (np.diff(rows) > 0).all()


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("limit", [24, 64])
def test_undominated_keeps_the_local_frontier_up_to_the_tolerance(seed: int, limit: int) -> None:
    table = random_table(seed)
    rows, cost, slack = table.undominated(limit), costs_of(table), tolerances(table) + SLACK
    local = rows[table.space.device_only[rows]]
    for row in table.local_frontier:
        assert (cost[local] <= cost[row] + slack).all(axis=1).any()


@pytest.mark.parametrize("seed", range(5))
def test_no_kept_row_is_dominated_beyond_the_tolerance(seed: int) -> None:
    table = random_table(seed)
    rows, cost, slack = table.undominated(64), costs_of(table), tolerances(table)
    for row in rows:
        beaten_by_far = (cost + slack <= cost[row]).all(axis=1)
        assert not beaten_by_far.any()


@pytest.mark.parametrize("seed", range(5))
def test_every_row_left_out_without_a_limit_has_a_kept_row_at_least_as_good(seed: int) -> None:
    table = random_table(seed)
    rows, cost, slack = table.undominated(len(table)), costs_of(table), tolerances(table) + SLACK
    for row in range(len(table)):
        assert (cost[rows] <= cost[row] + slack).all(axis=1).any()


def test_a_row_that_is_worse_in_everything_is_left_out() -> None:
    table = make_table([0.9, 0.8, 0.7], [1e-3, 2e-3, 1e-4], [400, 900, 0], [1e-3, 3e-3, 0])
    assert table.undominated().tolist() == [0, 2]


def test_taking_rows_takes_them_in_every_column() -> None:
    table = random_table(1)
    rows = np.array([7, 3, 100])
    taken = table.take(rows)
    assert len(taken) == 3
    assert taken.space.decisions == tuple(table.space.decisions[row] for row in rows)
    for name in ("accuracy", "head_s", "payload_bytes", "payload_std_bytes", "mec_s"):
        np.testing.assert_array_equal(getattr(taken, name), getattr(table, name)[rows])
