"""``linucb`` learns from replies how long the MEC takes, and decides by what it has learned."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from support.synthetic import make_costs, make_state, row_of

from controller.controllers.linucb import BanditTuning, LinUcb
from controller.costs import CostTable
from controller.errors import UsageError
from controller.predict.estimators import Estimator, Kind
from controller.records import NO_ROW, Floats, SystemState
from controller.utility import Utility

COSTS = make_costs(12)
PLAIN = BanditTuning(alpha=0.0, memory=None, noise=0.1, ridge=1.0)
CALM = {
    "uplink_bps": 1e5,
    "deadline_s": 0.2,
    "capture_period_s": 0.2,
    "frame_age_s": 0.0,
    "uplink_backlog_bytes": 0.0,
    "device_slowdown": 600.0,  # no device-only row is in time
    "on_time_frac": 1.0,
    "uplink_age_s": 0.0,
    "mec_age_s": 0.0,
}
#: Here nothing is worth sending.
DEAD = CALM | {"uplink_bps": 10.0, "device_slowdown": 40.0}


def bandit(tuning: BanditTuning = PLAIN, batch: int = 1, costs: CostTable = COSTS) -> LinUcb:
    estimator = Estimator(Kind.LAST, 1, 1.0, None, 0.0)
    return LinUcb(costs, Utility(), estimator, 0.2, tuning, batch)


def delays_s(controller: LinUcb, state: SystemState) -> Floats:
    """(1, C) optimistic delay of each offload, when nothing waits on the link; 0 for device-only rows."""
    expected = controller.expectation(state, controller.context(state))
    return expected.total_s - state.frame_age_s[:, None] - expected.head_s


def told(state: SystemState, samples: int, row: int, took_s: float) -> SystemState:
    """The state once a reply has come."""
    news = {"uplink_sample_count": np.array([samples]), "replied_row": np.array([row])}
    return replace(state, replied_s=np.array([took_s]), **news)


def live(controller: LinUcb, state: SystemState, factor: float, frames: int) -> list[int]:
    """The rows of some frames, when every reply takes ``factor`` times what profile and telemetry predict."""
    rows, samples, news = [], 0, state
    for _ in range(frames):
        row = int(controller.decide(news)[0])
        rows.append(row)
        if not COSTS.space.device_only[row]:
            samples += 1
            wait = state.mec_queue_mean_s + state.rtt_s + COSTS.mec_s[row] * state.mec_slowdown
            took_s = float(COSTS.uplink_bytes[row] * 8.0 / state.uplink_bps[0, 0] + wait[0])
            news = told(state, samples, row, factor * took_s)
    return rows


def test_it_learns_by_what_factor_predictions_are_wrong() -> None:
    state = make_state(seed=1, **CALM)
    controller = bandit()
    before = delays_s(controller, state)
    rows = live(controller, state, 1.8, 60)
    assert not COSTS.space.device_only[rows[0]]
    after = delays_s(controller, state)
    assert after[0, rows[-1]] == pytest.approx(1.8 * before[0, rows[-1]], rel=0.1)
    controller.reset(np.array([True]))
    np.testing.assert_allclose(delays_s(controller, state), before)


def test_it_sends_less_when_replies_take_longer_than_predicted() -> None:
    state = make_state(seed=1, **CALM)
    sent = {factor: COSTS.payload_bytes[live(bandit(), state, factor, 60)] for factor in (1.0, 4.0)}
    assert len(set(sent[1.0])) == 1
    assert sent[4.0][0] == sent[1.0][0]
    assert 0 < sent[4.0][-1] < sent[1.0][-1]


def test_device_only_frames_teach_nothing() -> None:
    state = make_state(seed=1, **DEAD)
    controller = bandit()
    before = delays_s(controller, state)
    assert COSTS.space.device_only[live(controller, state, 3.0, 30)].all()
    np.testing.assert_array_equal(delays_s(controller, state), before)


def test_a_request_without_a_reply_bounds_the_delays_from_below() -> None:
    state = make_state(seed=1, **CALM)
    controller = bandit()
    row = int(controller.decide(state)[0])
    usual = delays_s(controller, state)
    waiting = replace(state, waiting_row=np.array([row]), waiting_s=3.0 * usual[:, row])
    np.testing.assert_allclose(delays_s(controller, waiting), 3.0 * usual)
    patient = replace(state, waiting_row=np.array([row]), waiting_s=0.5 * usual[:, row])
    np.testing.assert_allclose(delays_s(controller, patient), usual)


def test_optimism_shrinks_with_replies_and_counts_less_on_key_frames() -> None:
    state, certain = make_state(seed=1, **CALM), bandit()
    curious = bandit(replace(PLAIN, alpha=0.2))
    offloads = ~COSTS.space.device_only
    gap = (delays_s(certain, state) - delays_s(curious, state))[0, offloads]
    assert (gap > 0).all()
    after_failures = replace(state, on_time_frac=np.array([0.5]))
    gap_of_key = (delays_s(certain, after_failures) - delays_s(curious, after_failures))[0, offloads]
    np.testing.assert_allclose(gap_of_key, gap * np.sqrt(0.2 / 0.8))
    for controller in (certain, curious):
        live(controller, state, 1.0, 100)
    learned_gap = (delays_s(certain, state) - delays_s(curious, state))[0, offloads]
    assert (learned_gap < gap).all()
    assert learned_gap.min() < 0.5 * gap.min()


def test_each_row_of_a_batch_learns_for_itself() -> None:
    states = make_state(20, seed=5)
    controller, alone = bandit(batch=20), [bandit() for _ in range(20)]
    for step in range(6):
        rows = controller.decide(states)
        assert rows.tolist() == [int(one.decide(row_of(states, b))[0]) for b, one in enumerate(alone)]
        row = np.where(COSTS.space.device_only[rows], NO_ROW, rows)
        news = {"replied_row": row, "replied_s": np.linspace(0.01, 0.3, 20), "mec_age_s": states.uplink_age_s}
        states = replace(states, uplink_sample_count=np.full(20, 50 + step), **news)


def test_a_dead_link_leaves_a_local_answer() -> None:
    state = make_state(seed=1, **CALM | {"uplink_bps": 0.0, "device_slowdown": 40.0, "uplink_backlog_bytes": 700.0})
    assert COSTS.space.device_only[bandit().decide(state)].all()


def test_a_table_without_an_offload_is_decided() -> None:
    costs = COSTS.take(np.flatnonzero(COSTS.space.device_only))
    assert bandit(costs=costs).decide(make_state(seed=1, **CALM)).shape == (1,)


@pytest.mark.parametrize("wrong", [{"alpha": -1.0}, {"memory": 0.0}, {"noise": 0.0}, {"ridge": float("nan")}])
def test_an_impossible_tunable_is_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(UsageError, match=f"linucb {next(iter(wrong))}: got"):
        BanditTuning(**wrong)
