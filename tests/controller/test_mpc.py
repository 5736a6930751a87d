"""What ``fugu-mpc`` plans for, on tables worked out by hand.

Device slowdown 10, MEC slowdown 2, round trip 10 ms, deadline 100 ms. The fallback, row 0, takes 10 ms and starts at
86.5 ms. Untrained, the median of a transfer time is that at the mean rate, and its logarithm has a spread of 0.3.

    row        accuracy  device  bytes  MEC
    0 local    0.80      10 ms
    1 local    0.94      90 ms
    2 offload  0.96      1 ms    5000   12 ms with the round trip
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from support.stream import stream_costs
from support.synthetic import make_costs, make_state, row_of

from controller.controllers.mpc import FuguMpc, MpcTuning
from controller.controllers.registry import make_controller
from controller.costs import CostTable
from controller.errors import UsageError
from controller.predict.transfer import TransferPredictor, default_predictor
from controller.records import Decision, SystemState
from controller.space import DecisionSpace
from controller.utility import Utility

CAREFREE = {"device_margin": 1.0, "headroom_frac": 0.0, "penalty": 0.0}


def table() -> CostTable:
    decisions = tuple(Decision("net", 28, *rest) for rest in ((0, 2, "none"), (1, 4, "none"), (1, 0, "jpeg30")))
    return CostTable(
        DecisionSpace(decisions, np.array([2, 4, 4]), np.arange(3)),
        accuracy=np.array([0.80, 0.94, 0.96]),
        head_s=np.array([0.001, 0.009, 0.0001]),
        payload_bytes=np.array([0.0, 0.0, 5000.0]),
        payload_std_bytes=np.zeros(3),
        mec_s=np.array([0.0, 0.0, 0.001]),
    )


def state(**changed: float) -> SystemState:
    fixed = {
        "deadline_s": 0.1,
        "capture_period_s": 0.1,
        "frame_age_s": 0.0,
        "uplink_bps": 4e6,
        "uplink_backlog_bytes": 0.0,
        "rtt_s": 0.01,
        "in_flight": 0,
        "device_slowdown": 10.0,
        "mec_queue_mean_s": 0.0,
        "mec_slowdown": 2.0,
    }
    return make_state(1, **fixed | changed)


def chosen(seen: SystemState, predictor: TransferPredictor | None = None, **tuning: Any) -> int:
    made = FuguMpc(table(), Utility(), predictor or default_predictor(), MpcTuning(**CAREFREE | tuning))
    return int(made.decide(seen)[0])


def with_spread(spread: float) -> TransferPredictor:
    """An untrained predictor of another spread."""
    return replace(default_predictor(), out_bias=default_predictor().out_bias * np.float32(spread / 0.3))


def test_a_good_link_is_used_and_a_dead_one_is_not() -> None:
    assert chosen(state()) == 2  # 10 ms to cross
    assert chosen(state(uplink_bps=2e4)) == 1  # 2 s
    assert chosen(state(uplink_backlog_bytes=1e5)) == 1  # 200 ms until the link is free


def test_the_same_mean_rate_is_trusted_less_when_it_is_less_certain() -> None:
    seen = state(uplink_bps=0.6e6)  # 66.7 ms of the 73.5 ms that there are
    assert chosen(seen, with_spread(0.02)) == 2
    assert chosen(seen, with_spread(1.0)) == 1


def test_a_wait_at_the_mec_is_a_risk_before_it_is_a_miss() -> None:
    assert chosen(state(mec_queue_mean_s=0.005)) == 2
    assert chosen(state(mec_queue_mean_s=0.06)) == 1  # 64 ms are free: a third of the waits is longer


def test_a_slow_row_is_planned_for_until_it_costs_a_frame() -> None:
    """No uplink. Row 1 delays the next frame by 50 ms of 40, which row 0 makes up for; or by 60 ms of 30, and with two
    frames waiting the device drops one."""
    assert chosen(state(uplink_bps=2e4, capture_period_s=0.04)) == 1
    assert chosen(state(uplink_bps=2e4, capture_period_s=0.03)) == 0


def test_an_old_frame_has_less_time() -> None:
    assert chosen(state(uplink_bps=2e4, frame_age_s=0.005)) == 1
    assert chosen(state(uplink_bps=2e4, frame_age_s=0.02)) == 0


def test_a_reply_that_would_be_given_up_earns_nothing_for_skipped_frames_either() -> None:
    """No row is in time, yet late answers stand for skipped frames. The fast local row answers after 800 ms, the full
    offload after 422 ms and the transfer, and a reply counts until 600 ms. The transfer takes 72 or 300 ms."""
    costs = stream_costs((5,))
    made = FuguMpc(costs, Utility(), with_spread(0.01), MpcTuning(**CAREFREE))
    slow = {"device_slowdown": 400.0, "deadline_s": 0.3}
    local, offload = costs.local_frontier[0], np.flatnonzero(costs.space.full_offload)[0]
    assert made.decide(state(uplink_bps=1e6, **slow))[0] == offload
    assert made.decide(state(uplink_bps=2.4e5, **slow))[0] == local


@pytest.mark.parametrize("costs", [make_costs(40), make_costs(3), stream_costs()], ids=["images", "few", "stream"])
def test_a_batch_decides_as_each_of_its_states_alone(costs: CostTable) -> None:
    made = make_controller("fugu-mpc", costs, Utility())
    states = make_state(40, seed=3)
    alone = [int(made.decide(row_of(states, row))[0]) for row in range(40)]
    assert made.decide(states).tolist() == alone
    assert len(set(alone)) > 1


@pytest.mark.parametrize(
    ("wrong", "expected"),
    [
        ({"horizon": -1}, "horizon: got -1; expected 0 to 20 decisions"),
        ({"horizon": 1.5}, "horizon: got 1.5"),
        ({"horizon": 10**6}, "horizon: got 1000000"),
        ({"margin": 0.0}, "margin: got 0.0; expected a factor above 0"),
        ({"device_margin": float("nan")}, "device_margin: got nan"),
        ({"headroom_frac": 1.0}, "headroom_frac: got 1.0; expected 0 or more, below 1"),
    ],
)
def test_impossible_tunings_are_refused(wrong: dict[str, float], expected: str) -> None:
    with pytest.raises(UsageError, match=f"fugu-mpc {expected}"):
        make_controller("fugu-mpc", make_costs(), Utility(), wrong)
