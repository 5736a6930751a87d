"""The cost table: which rows are worth choosing from, and which answer alone."""

from __future__ import annotations

import numpy as np
import pytest
from support.synthetic import make_state

from controller.controllers.shortlist import shortlist
from controller.costs import CostTable
from controller.predict.latency import predict
from controller.records import NO_PAYLOAD, Decision
from controller.scenario import ScenarioRange
from controller.space import DecisionSpace


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


FAMILY = ScenarioRange()


@pytest.mark.parametrize("seed", range(3))
def test_a_shortlist_loses_next_to_nothing_of_the_best_utility(seed: int) -> None:
    table = random_table(seed)
    rows = shortlist(table, FAMILY, limit=48)
    assert len(rows) <= 48
    assert rows.tolist() == sorted(set(rows.tolist()))
    state = make_state(500, seed=seed, uplink_backlog_bytes=0.0)
    total = predict(table, state, state.uplink_bps[:, :1])
    energy = FAMILY.utility.energy_j(total.head_s, total.transmit_s[:, :, 0])
    on_time = total.total_s[:, :, 0] <= state.deadline_s[:, None]
    worth = FAMILY.utility.of(table.accuracy[None], on_time, energy, np.zeros((1, 1), bool))
    assert worth[:, rows].max(axis=1).mean() > worth.max(axis=1).mean() - 0.005


def test_a_shortlist_keeps_the_fastest_local_answer_whatever_its_limit() -> None:
    table = random_table(0)
    assert shortlist(table, FAMILY, limit=1).tolist() == [table.local_frontier[0]]


def test_a_row_that_is_never_best_is_not_on_the_shortlist() -> None:
    table = make_table([0.9, 0.85, 0.9], [1e-3, 2e-3, 1e-4], [0, 0, 400], [0, 0, 1e-3])
    assert shortlist(table, FAMILY).tolist() == [0, 2]
