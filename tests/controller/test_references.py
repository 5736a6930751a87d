"""Bytes by the age of the reference: which column holds an age, what is left of a table when rows are taken, and what
controllers make of them."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from support.synthetic import make_costs, make_state

from controller.controllers.registry import make_controller
from controller.costs import CostTable
from controller.packets import wire_bytes
from controller.predict.latency import predict
from controller.records import Decision, SystemState
from controller.references import NO_STREAM, ReferenceCosts
from controller.space import DecisionSpace
from controller.utility import Utility

AGES = np.array([1, 2, 3, 5, 8])


def _references(stream: list[int]) -> ReferenceCosts:
    count = len(stream)
    by_age = np.arange(6 * count, dtype=float).reshape(count, 6)
    return ReferenceCosts(AGES, by_age, np.array(stream), np.array([number == 1 for number in stream]))


def test_an_age_that_was_not_recorded_counts_as_the_next_older_one() -> None:
    ages = np.array([[0, 1, 2, 3], [4, 5, 7, 100]])
    assert _references([0]).column(ages).tolist() == [[0, 1, 2, 3], [4, 4, 5, 5]]


def test_rows_that_are_taken_keep_their_bytes_and_number_their_streams_anew() -> None:
    taken = _references([0, NO_STREAM, 1, 2, 2]).take(np.array([4, 1, 2]))
    assert taken.stream.tolist() == [1, NO_STREAM, 0]
    assert taken.chained.tolist() == [False, False, True]
    assert taken.payload_bytes[:, 0].tolist() == [24.0, 6.0, 12.0]
    assert taken.streams == 2
    assert _references([NO_STREAM]).streams == 0


def test_other_devices_send_payloads_that_stand_alone() -> None:
    costs = make_costs()
    offloads = np.flatnonzero(costs.space.full_offload)
    stream = np.full(len(costs), NO_STREAM)
    stream[offloads[0]] = 0
    references = ReferenceCosts(AGES, np.zeros((len(costs), 6)), stream, np.zeros(len(costs), np.bool_))
    with_stream = dataclasses.replace(costs, references=references)
    assert np.flatnonzero(with_stream.neighbour_rows).tolist() == offloads[1:].tolist()


def test_without_references_every_payload_stands_alone() -> None:
    costs = make_costs()
    assert costs.references is None
    assert len(costs.ages) == 0
    assert set(costs.stream.tolist()) == {NO_STREAM}
    assert not costs.chained.any()
    np.testing.assert_array_equal(costs.payload_bytes_by_age[:, 0], costs.payload_bytes)
    assert costs.take(np.array([0])).references is None


# What a decision sends now


def _aged() -> CostTable:
    """A weak local row; a stream that is more accurate, of 2,000 bytes alone and 100 with a reference; an offload in
    between that stands alone."""
    decisions = (
        Decision("net", 28, 0, 2, "none"),
        Decision("net", 28, 1, 1, "signs"),
        Decision("net", 28, 1, 0, "jpeg30"),
    )
    by_age = np.array([[0.0] * 6, [2000.0, 100.0, 120.0, 140.0, 160.0, 180.0], [600.0] * 6])
    return CostTable(
        DecisionSpace(decisions, np.array([2, 4, 4]), np.arange(3)),
        accuracy=np.array([0.5, 0.96, 0.9]),
        head_s=np.array([0.002, 0.001, 0.001]),
        payload_bytes=by_age[:, 1],
        payload_std_bytes=np.zeros(3),
        mec_s=np.array([0.0, 0.002, 0.002]),
        references=ReferenceCosts(AGES, by_age, np.array([NO_STREAM, 0, NO_STREAM]), np.zeros(3, np.bool_)),
    )


LOCAL, STREAM, ALONE = range(3)


def _seen(age: list[int] | None, bps: float, batch: int = 1) -> SystemState:
    state = make_state(
        batch,
        deadline_s=0.15,
        capture_period_s=0.1,
        frame_age_s=0.0,
        uplink_bps=bps,
        uplink_backlog_bytes=0.0,
        uplink_age_s=0.0,
        rtt_s=0.01,
        device_slowdown=5.0,
        queued_frames=0,
        in_flight=0,
        mec_queue_s=0.0,
        mec_queue_mean_s=0.0,
        mec_slowdown=1.0,
    )
    return dataclasses.replace(state, reference_age=None if age is None else np.array(age)[:, None])


def test_the_uplink_carries_what_the_age_of_the_reference_says() -> None:
    costs = _aged()
    found = costs.uplink_bytes_at(np.array([[0], [1], [4], [99]]))
    expected = np.array([[0, wire_bytes(size), wire_bytes(600)] for size in (2000, 100, 160, 180)])
    np.testing.assert_array_equal(found, expected)
    np.testing.assert_array_equal(costs.uplink_bytes_at(None), costs.uplink_bytes)
    plain = make_costs()
    assert plain.uplink_bytes_at(None) is plain.uplink_bytes


def test_predictions_take_the_bytes_of_now_and_planning_the_steady_state() -> None:
    costs, bps = _aged(), np.full((2, 1), 1e5)
    now = predict(costs, _seen([0, 1], 1e5, batch=2), bps).transmit_s[:, STREAM, 0]
    assert now.tolist() == pytest.approx([wire_bytes(2000) * 8 / 1e5, wire_bytes(100) * 8 / 1e5])
    assert predict(costs, _seen(None, 1e5, batch=2), bps).transmit_s[0, STREAM, 0] == now[1]


@pytest.mark.parametrize(
    "name", ["greedy", "edgent", "edgent-dynamic", "expected-utility", "linucb", "fugu-mpc", "oboe"]
)
def test_controllers_take_a_stream_while_it_has_a_reference(name: str) -> None:
    """At 80 kbit/s 100 bytes take 23 ms and 600 take 72 ms; 2,000 take 218 ms, beyond the deadline."""
    controller = make_controller(name, _aged(), Utility())
    assert controller.decide(_seen([1], 8e4)).tolist() == [STREAM]
    assert make_controller(name, _aged(), Utility()).decide(_seen([0], 8e4)).tolist() != [STREAM]
    together = make_controller(name, _aged(), Utility(), batch=3).decide(_seen([1, 0, 8], 8e4, batch=3))
    assert (together == STREAM).tolist() == [True, False, True]
