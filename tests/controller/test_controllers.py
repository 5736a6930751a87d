"""Every controller against decisions worked out by hand, and what all of them promise.

The table below under the default state (device slowdown 10, MEC slowdown 2, round trip 10 ms, deadline and frame
interval 100 ms). The fastest local row takes 10 ms, so the fallback starts at 100 - (1.15 * 10 + 2) = 86.5 ms: an
answer of the MEC must be there by then. Milliseconds, head + transmission + MEC with round trip:

    row                   accuracy  at 1 Mbit/s                 at 50 kbit/s
    0 small exit 0 local  0.80      10                          10
    1 small exit 1 local  0.88      30                          30
    2 big local           0.94      90                          90
    3 big raw             0.94      1 + 6.3 + 14   = 21.3       1 + 125.4 + 14
    4 big png             0.94      2 + 4 + 14.2   = 20.2       2 + 80 + 14.2  = 96.2
    5 big cut at 3, u8    0.938     40 + 1.6 + 12  = 53.6       40 + 32 + 12   = 84
    6 big 14 px png       0.90      2 + 1.2 + 12   = 15.2       2 + 24 + 12    = 38
    7 small exit 1 png    0.88      2 + 4 + 11     = 17         2 + 80 + 11    = 93
"""

from __future__ import annotations

from dataclasses import fields, replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.synthetic import make_costs, make_state

from controller.controllers import registry
from controller.controllers.bandwidth_states import BandwidthStates, default_states, learn_states
from controller.controllers.base import Controller
from controller.controllers.learned import FrozenPolicy
from controller.controllers.registry import CONTROLLER_NAMES, TUNABLE_KEYS, make_controller
from controller.controllers.tuning import tune
from controller.costs import CostTable
from controller.errors import UsageError
from controller.features.schema import FEATURE_SCHEMA
from controller.packets import wire_bytes
from controller.predict.estimators import Estimator, Kind
from controller.predict.uplink import Trace, TraceBank
from controller.records import NO_ROW, UPLINK_HISTORY, Decision, SystemState
from controller.space import DecisionSpace
from controller.utility import Utility

PLAIN = {"kind": "last", "window": 1, "margin": 1.0, "recovery_s": None, "headroom_frac": 0.0}
TUNED_BY_ESTIMATE = ("jpeg-offload", "neurosurgeon", "edgent", "greedy")


def _table() -> CostTable:
    rows: list[tuple[Any, ...]] = [
        # model, px, exit, cut, codec, stages to exit, accuracy, head ms, bytes on the wire, MEC ms
        ("small", 28, 0, 2, "none", 2, 0.80, 1.0, 0, 0),
        ("small", 28, 1, 4, "none", 4, 0.88, 3.0, 0, 0),
        ("big", 28, 2, 6, "none", 6, 0.94, 9.0, 0, 0),
        ("big", 28, 2, 0, "raw", 6, 0.94, 0.1, 784, 2.0),
        ("big", 28, 2, 0, "png", 6, 0.94, 0.2, 500, 2.1),
        ("big", 28, 2, 3, "u8", 6, 0.938, 4.0, 200, 1.0),
        ("big", 14, 2, 0, "png", 6, 0.90, 0.2, 150, 1.0),
        ("small", 28, 1, 0, "png", 4, 0.88, 0.2, 500, 0.5),
    ]
    space = DecisionSpace(
        tuple(Decision(*row[:5]) for row in rows), np.array([row[5] for row in rows]), np.arange(len(rows))
    )
    accuracy, head_ms, on_wire, mec_ms = (np.array([row[i] for row in rows], dtype=float) for i in (6, 7, 8, 9))
    payload = np.maximum(on_wire - np.where(on_wire > 384, 134, 127), 0.0)
    assert (wire_bytes(payload[3:]) == on_wire[3:]).all()
    return CostTable(space, accuracy, head_ms / 1e3, payload, np.zeros(len(rows)), mec_ms / 1e3)


COSTS = _table()
UTILITY = Utility()


def _state(uplink_bps: float | list[float] = 1e6, **changed: Any) -> SystemState:
    """One row of the default state; ``uplink_bps`` is newest first."""
    history = np.resize(np.asarray(uplink_bps, dtype=float), UPLINK_HISTORY)
    values: dict[str, Any] = {
        "deadline_s": 0.1,
        "capture_period_s": 0.1,
        "frame_age_s": 0.0,
        "uplink_sample_bytes": [1000.0] * UPLINK_HISTORY,
        "uplink_sample_age_s": [0.0] * UPLINK_HISTORY,
        "uplink_sample_count": 8,
        "uplink_age_s": 0.0,
        "uplink_backlog_bytes": 0.0,
        "rtt_s": 0.01,
        "device_slowdown": 10.0,
        "queued_frames": 0,
        "in_flight": 0,
        "mec_queue_s": 0.0,
        "mec_queue_mean_s": 0.0,
        "mec_slowdown": 2.0,
        "mec_age_s": 0.0,
        "replied_row": NO_ROW,
        "replied_s": 0.0,
        "waiting_row": NO_ROW,
        "waiting_s": 0.0,
        "link_up": True,
        "on_time_frac": 1.0,
        "fallback_frac": 0.0,
    } | changed
    return SystemState(uplink_bps=history[None], **{name: np.array([value]) for name, value in values.items()})


def _with_truth(state: SystemState, truth_ms: list[float]) -> SystemState:
    return replace(state, true_latency_s=np.array([truth_ms]) / 1e3)


def _make(name: str, tuning: dict[str, Any] | None = None, batch: int = 1, costs: CostTable = COSTS) -> Controller:
    return make_controller(name, costs, UTILITY, tuning, seed=3, policy=_policy(), batch=batch)


def _policy() -> FrozenPolicy:
    rng = np.random.default_rng(0)
    context, candidate = len(FEATURE_SCHEMA.context), len(FEATURE_SCHEMA.candidate)

    def weights(*shape: int) -> np.ndarray:
        return rng.standard_normal(shape).astype(np.float32)

    return FrozenPolicy(
        weights(context, 8),
        weights(candidate, 8),
        weights(8),
        weights(8, 8),
        weights(8),
        weights(8),
        weights(candidate),
    )


def _row(name: str, state: SystemState, **tuning: Any) -> int:
    return int(_make(name, tuning).decide(state)[0])


# Estimators


@pytest.mark.parametrize(
    ("estimator", "expected"),
    [
        (Estimator(Kind.LAST, 1, 1.0), 8e6),
        (Estimator(Kind.HARMONIC, 2, 1.0), 3.2e6),  # 2 / (1/8 + 1/2)
        (Estimator(Kind.MINIMUM, 3, 1.0), 1e6),
        (Estimator(Kind.MINIMUM, 2, 0.5), 1e6),
        (Estimator(Kind.PERCENTILE, 3, 1.0), 1.5e6),  # halfway from 1 to 2
    ],
)
def test_estimates_worked_out_by_hand(estimator, expected):
    state = _state([8e6, 2e6, 1e6, 4e6, 4e6, 4e6, 4e6, 4e6])
    assert estimator.of(state)[0] == pytest.approx(expected)


def test_a_moving_average_forgets_exponentially():
    state = _state([8e6, 2e6, 2e6, 2e6, 2e6, 2e6, 2e6, 2e6])
    share = 0.5 / (1 - 0.5**8)  # alpha = 2 / (3 + 1)
    assert Estimator(Kind.EWMA, 3, 1.0).of(state)[0] == pytest.approx(2e6 + share * 6e6)


def test_hope_doubles_an_old_estimate_and_has_an_end():
    estimator = Estimator(Kind.LAST, 1, 1.0, recovery_s=5.0)
    assert estimator.of(_state(1e6, uplink_age_s=10.0))[0] == pytest.approx(4e6)
    assert np.isfinite(estimator.of(_state(1e6, uplink_age_s=1e9))[0])
    assert replace(estimator, recovery_s=None).of(_state(1e6, uplink_age_s=10.0))[0] == pytest.approx(1e6)


@pytest.mark.parametrize("wrong", [{"window": 0}, {"window": 9}, {"margin": 0.0}, {"recovery_s": 0.0}])
def test_impossible_estimators_are_refused(wrong):
    with pytest.raises(UsageError, match=f"{next(iter(wrong))}: got"):
        Estimator(**wrong)


# Decisions worked out by hand


@pytest.mark.parametrize(
    ("name", "state", "expected"),
    [
        ("device-only", _state(), 2),
        ("device-only", _state(deadline_s=0.08), 1),
        ("device-only", _state(frame_age_s=0.02), 1),
        ("device-only", _state(capture_period_s=0.05), 1),  # row 2 would be in time, and the next frame would not
        ("device-only", _state(deadline_s=0.005), 0),  # none is in time: the fastest
        ("mec-only", _state(), 3),
        ("mec-only", _state(2e3), 3),
        ("jpeg-offload", _state(), 4),  # row 3 is as accurate and takes longer
        ("jpeg-offload", _state(5e4), 4),
        ("jpeg-offload", _state(2e3), 6),  # none is in time: the fastest
        ("neurosurgeon", _state(), 4),
        ("neurosurgeon", _state(5e4), 5),
        ("neurosurgeon", _state(2e3), 2),
        ("edgent", _state(), 4),
        ("edgent", _state(5e4), 5),
        ("edgent", _state(2e3), 2),
        ("edgent", _state(2e3, deadline_s=0.05), 1),
        ("edgent", _state(2e3, deadline_s=0.005), 0),
        ("edgent", _state(uplink_backlog_bytes=1e4), 2),  # 80 ms until the link is free
        ("greedy", _state(), 3),  # energy: 1 ms of device and 6.3 ms of radio against 2 ms and 4 ms
        ("greedy", _state(5e4), 4),  # 2 ms of device and 80 ms of radio are cheaper than row 2's 90 ms of device
        ("greedy", _state(mec_queue_mean_s=0.2), 2),
    ],
)
def test_decisions(name, state, expected):
    tuning = {key: value for key, value in PLAIN.items() if key in TUNABLE_KEYS[name]}
    assert _row(name, state, **tuning) == expected


def test_an_answer_after_the_last_moment_counts_if_it_is_worth_waiting_for():
    """At 50 kbit/s row 4 answers at 96.2 ms: before the deadline, and after the last moment at 86.5 ms."""
    assert _row("jpeg-offload", _state(5e4, deadline_s=0.1), **PLAIN) == 4
    assert _row("jpeg-offload", _state(5e4, deadline_s=0.095), **PLAIN) == 6


def test_a_prediction_must_leave_headroom_for_a_load_that_grows():
    """Row 2 takes 90 ms. What must stay free is a share of the budget that the frame has left, not of the deadline."""
    assert _row("device-only", _state(), headroom_frac=0.05) == 2
    assert _row("device-only", _state(), headroom_frac=0.15) == 1
    assert _row("device-only", _state(frame_age_s=0.02, deadline_s=0.114), headroom_frac=0.04) == 2  # 90 <= 90.2
    assert _row("device-only", _state(frame_age_s=0.02, deadline_s=0.113), headroom_frac=0.04) == 1  # 90 > 89.3


def test_a_device_that_need_not_keep_pace_takes_the_slow_row():
    assert _row("device-only", _state(capture_period_s=0.05), keep_pace=False, headroom_frac=0.0) == 2


def test_greedy_pays_for_the_frames_that_wait():
    """No uplink, frames every 20 ms: row 2 delays the next frame by 3.5 intervals, row 1 by half of one."""
    state = _state(2e3, capture_period_s=0.02)
    assert _row("greedy", state, **PLAIN, penalty=0.0) == 2
    assert _row("greedy", state, **PLAIN, penalty=0.05) == 1
    assert _row("greedy", state, **PLAIN, penalty=0.4) == 0


def test_the_greedy_oracle_believes_the_truth_and_not_the_history():
    truth = [10.0, 30.0, 90.0, 80.0, 200.0, 200.0, 200.0, 200.0]
    assert _row("greedy-oracle", _with_truth(_state(2e3), truth)) == 3
    truth[3] = 200.0
    assert _row("greedy-oracle", _with_truth(_state(1e9), truth)) == 2


def test_the_greedy_oracle_sees_the_true_load_of_the_device():
    """The device is twice as slow as last measured: only rows 0 and 1 are in time, and row 1 delays the next frame."""
    truth = [20.0, 60.0, 180.0, 300.0, 300.0, 300.0, 300.0, 300.0]
    state = _with_truth(_state(capture_period_s=0.03), truth)
    assert _row("greedy-oracle", state, penalty=0.0) == 1
    assert _row("greedy-oracle", state, penalty=0.4) == 0


def test_the_greedy_oracle_is_refused_where_the_future_is_unknown():
    with pytest.raises(UsageError, match="twin only"):
        _make("greedy-oracle").decide(_state())


def test_static_best_takes_the_tuned_row_and_no_other():
    tuning = registry.decision_tuning(COSTS, 5)
    assert {_row("static-best", _state(bps), **tuning) for bps in (1e3, 1e6, 1e9)} == {5}


def test_untuned_static_best_takes_a_row_that_is_in_time_on_a_typical_uplink():
    assert _row("static-best", _state()) in (3, 4, 6)


def test_random_takes_every_row():
    taken = _make("random", batch=500).decide(make_state(500))
    assert set(taken.tolist()) == set(range(len(COSTS)))


# Edgent's configuration map


def test_the_papers_reward_prefers_the_fastest_in_time():
    """1 / latency in 1/s outweighs exp(accuracy): 100 for row 0."""
    assert _row("edgent-dynamic", _state(), latency_weight=1.0) == 0


def test_without_the_latency_term_the_map_takes_the_most_accurate_in_time():
    assert _row("edgent-dynamic", _state(1e6), latency_weight=0.0) in (2, 3, 4)
    assert _row("edgent-dynamic", _state(5e4, deadline_s=0.08, capture_period_s=0.08), latency_weight=0.0) == 6


def test_the_map_is_looked_up_again_only_after_a_change():
    rng = np.random.default_rng(0)
    controller = _make("edgent-dynamic", {"latency_weight": 0.0})
    rows = []
    for frame in range(60):
        bps = (1e6 if frame < 30 else 2e3) * np.exp(0.1 * rng.standard_normal())
        state = _state(bps, uplink_sample_count=frame + 1, deadline_s=0.08)
        rows.append(int(controller.decide(state)[0]))
    assert len(set(rows[10:30])) == 1, "stationary noise moved the decision"
    assert COSTS.payload_bytes[rows[29]] > 0
    assert COSTS.payload_bytes[rows[33]] == 0, "the drop of the uplink was not seen within four samples"
    assert len(set(rows[36:])) == 1


def test_a_map_entry_depends_on_its_key_alone():
    one, other = _make("edgent-dynamic", batch=50), _make("edgent-dynamic", batch=1)
    states = make_state(50, seed=9)
    together = one.decide(states)
    alone = [int(_make("edgent-dynamic").decide(_one(states, i))[0]) for i in range(50)]
    assert together.tolist() == alone
    other.decide(_one(states, 0))
    other.reset(np.array([True]))
    assert int(other.decide(_one(states, 7))[0]) == alone[7]


def test_learned_states_tell_calm_links_from_wild_ones():
    rng = np.random.default_rng(1)
    t = np.arange(600.0)
    calm = [Trace(f"calm{i}", t, 5e6 * np.exp(0.05 * rng.standard_normal(600)), 1.0) for i in range(4)]
    wild = [Trace(f"wild{i}", t, 1e6 * np.exp(0.6 * rng.standard_normal(600)), 1.0) for i in range(4)]
    states = learn_states(TraceBank(calm + wild))
    assert states.std[0] < 0.1
    assert states.std[-1] > 0.4
    assert (np.diff(states.deviations, axis=1) > 0).all()
    assert states.spread_class(np.array([0.04, 0.7])).tolist() == [0, len(states.std) - 1]


def test_states_survive_being_written_as_json():
    states = default_states()
    again = BandwidthStates.from_tuning(states.as_tuning())
    np.testing.assert_array_equal(again.deviations, states.deviations)
    assert again.prior == states.prior


def test_malformed_states_are_refused():
    with pytest.raises(UsageError, match="bandwidth states"):
        _make("edgent-dynamic", {"states": {"std": [0.1]}})


# What every controller promises


def _one(state: SystemState, row: int) -> SystemState:
    columns = {f.name: getattr(state, f.name) for f in fields(SystemState)}
    return SystemState(**{name: None if v is None else v[row : row + 1] for name, v in columns.items()})


@pytest.mark.parametrize("name", CONTROLLER_NAMES)
@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10_000), rows=st.integers(4, 40), extreme=st.sampled_from([1e-9, 1.0, 1e9]))
def test_every_decision_is_legal(name, seed, rows, extreme):
    costs = make_costs(rows, seed)
    state = make_state(5, seed)
    state = replace(
        state,
        uplink_bps=state.uplink_bps * extreme,
        uplink_age_s=state.uplink_age_s * extreme,
        true_latency_s=np.random.default_rng(seed).uniform(0.01, 1.0, (5, rows)),
    )
    decided = _make(name, batch=5, costs=costs).decide(state)
    assert decided.shape == (5,)
    assert decided.dtype.kind == "i"
    assert ((decided >= 0) & (decided < rows)).all()


@pytest.mark.parametrize("name", [name for name in CONTROLLER_NAMES if name not in ("random", "greedy-oracle")])
def test_a_batch_decides_as_its_rows_do(name):
    states = make_state(40, seed=5)
    together = _make(name, batch=40).decide(states)
    alone = [int(_make(name).decide(_one(states, i))[0]) for i in range(40)]
    assert together.tolist() == alone


@pytest.mark.parametrize("name", [name for name in CONTROLLER_NAMES if name not in ("random", "greedy-oracle")])
def test_reset_clears_the_memory(name):
    used, fresh = _make(name, batch=3), _make(name, batch=3)
    for seed in range(20):
        used.decide(replace(make_state(3, seed), uplink_sample_count=np.full(3, seed + 1)))
    used.reset(np.ones(3, dtype=bool))
    for seed in range(20, 30):
        state = replace(make_state(3, seed), uplink_sample_count=np.full(3, seed - 19))
        np.testing.assert_array_equal(used.decide(state), fresh.decide(state))


@pytest.mark.parametrize("name", CONTROLLER_NAMES)
def test_a_controller_bears_its_name(name):
    assert _make(name).name == name


# Making and tuning


def test_an_unknown_controller_is_refused_with_the_known_ones():
    with pytest.raises(UsageError, match=r"unknown controller 'oracle'.*edgent-dynamic"):
        _make("oracle")


@pytest.mark.parametrize("name", CONTROLLER_NAMES)
def test_an_unknown_tunable_is_refused(name):
    with pytest.raises(UsageError, match=f"tuning of {name}: got unknown key 'marign'"):
        _make(name, {"marign": 0.9})


@pytest.mark.parametrize("wrong", [{"window": "four"}, {"kind": "median"}, {"margin": None}])
def test_an_impossible_tunable_is_refused(wrong):
    with pytest.raises(UsageError, match="expected"):
        _make("greedy", wrong)


def test_ppo_without_a_policy_says_how_to_get_one():
    with pytest.raises(UsageError, match="--policy"):
        make_controller("ppo", COSTS, UTILITY)


def test_tuning_finds_the_best_fixed_row():
    tuning, score = tune("static-best", COSTS, UTILITY, lambda c: float(c.decide(_state())[0] == 5))
    assert COSTS.space.index(Decision(**tuning["decision"])) == 5
    assert score == 1.0


@pytest.mark.parametrize("name", TUNED_BY_ESTIMATE)
def test_tuning_finds_that_the_newest_samples_mislead(name):
    """Fast samples hide a slow link: whoever believes them sends what does not arrive. Careful kinds do not."""
    plain = {key: value for key, value in PLAIN.items() if key in TUNABLE_KEYS[name]}
    state = _state([1e6, 1e6, 1e6, 1e4, 1e4, 1e4, 1e4, 1e4])

    def careful(controller: Controller) -> float:
        return float(COSTS.uplink_bytes[controller.decide(state)[0]] < 500)

    tuning, score = tune(name, COSTS, UTILITY, careful, base=plain)
    assert careful(_make(name, plain)) == 0.0
    assert score == 1.0
    assert tuning["kind"] in ("minimum", "harmonic", "percentile", "ewma")
    assert careful(_make(name, tuning)) == 1.0


def test_tuning_gives_network_states_their_own_parameters():
    """Row 1 on the slow link needs a small margin, row 3 on the fast one a large margin."""
    slow, fast = (_state(bps, deadline_s=0.08, device_slowdown=15.0) for bps in (5e4, 1e6))

    def right(controller: Controller) -> float:
        score = 0
        for state, row in ((slow, 1), (fast, 3)):
            controller.reset(np.array([True]))
            score += int(controller.decide(state)[0]) == row
        return float(score)

    plain = PLAIN | {"states": default_states().as_tuning()}
    tuning, score = tune("oboe", COSTS, UTILITY, right, base=plain)
    assert score == 2.0
    assert tuning["map"]
    assert right(_make("oboe", {key: value for key, value in tuning.items() if key != "map"})) == 1.0


@pytest.mark.parametrize("name", [name for name in CONTROLLER_NAMES if name not in ("ppo", "greedy-oracle")])
def test_every_tuning_makes_its_controller_again(name):
    rng = np.random.default_rng(0)
    states = make_state(20, seed=1)
    base = {"states": default_states().as_tuning()} if name == "edgent-dynamic" else {}

    def judge(controller: Controller) -> float:
        controller.decide(states)
        return float(rng.random())

    tuning, score = tune(name, COSTS, UTILITY, judge, batch=20, base=base)
    assert set(tuning) <= set(TUNABLE_KEYS[name])
    assert score > 0
    assert _make(name, tuning, batch=20).decide(states).shape == (20,)
