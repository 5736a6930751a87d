"""Payloads that refer to earlier ones, in simulated time: whatever goes wrong costs one payload that stands alone per
stream, never a wrong answer, and every frame has one outcome."""

from __future__ import annotations

import random
from dataclasses import asdict

import pytest
from support.streams import CHAINED, FAST, FREE, KINDS, LOSE, SMALL, StreamMec, StreamSimulation, check, remote

from controller.records import Status
from runtime.link.senders import Draft
from runtime.protocol import wire
from runtime.protocol.wire import RejectReason

FRAMES = 20
kinds = pytest.mark.parametrize("row", KINDS.values(), ids=KINDS)


@kinds
def test_only_the_first_payload_stands_alone(row: int) -> None:
    sim = StreamSimulation()
    outcomes = sim.run(lambda _: row)
    check(outcomes, FRAMES)
    assert remote(outcomes) == list(range(FRAMES))
    assert sim.mec.alone == 1
    assert outcomes[0].payload_bytes > 4 * max(outcome.payload_bytes for outcome in outcomes[1:])


@kinds
@pytest.mark.parametrize("fault", [LOSE, RejectReason.BUSY, RejectReason.EXPIRED, RejectReason.FAILED], ids=str)
def test_a_request_without_an_answer_costs_one_payload_that_stands_alone(row: int, fault: str | RejectReason) -> None:
    sim = StreamSimulation()
    sim.mec.faults = {8: fault}
    outcomes = sim.run(lambda _: row)
    check(outcomes, FRAMES)
    lost = [o.frame for o in outcomes if o.status is not Status.OK]
    assert lost[0] == 7
    # A silent MEC is not asked again before it answers a ping, which is due 0.25 s after the last request.
    assert len(lost) <= (3 if fault == LOSE else 1)
    assert sim.mec.alone <= 2


@kinds
def test_frames_in_flight_behind_a_lost_one_are_all_answered(row: int) -> None:
    sim = StreamSimulation(fps=30.0, rtt_s=0.06, frames=40)  # two or three requests in flight
    sim.mec.faults = {20: RejectReason.BUSY}
    outcomes = sim.run(lambda _: row)
    check(outcomes, 40)
    assert [o.frame for o in outcomes if o.status is not Status.OK] == [19]
    assert sim.mec.count(RejectReason.REFERENCE) <= 3
    assert sim.mec.alone <= (5 if row == FREE else 2)


@kinds
def test_a_restarted_mec_costs_one_payload_that_stands_alone(row: int) -> None:
    sim = StreamSimulation(frames=60)
    sim.mec.plan(sim.clock() + 2.0, StreamMec.die)
    sim.mec.plan(sim.clock() + 2.5, StreamMec.restart)
    outcomes = sim.run(lambda _: row)
    check(outcomes, 60)
    assert remote(outcomes)[-20:] == list(range(40, 60))
    assert sim.mec.alone == 2


@kinds
def test_a_half_open_link_costs_one_payload_that_stands_alone(row: int) -> None:
    sim = StreamSimulation(frames=60)
    sim.mec.plan(sim.clock() + 2.0, lambda mec: setattr(mec, "forgotten", True))
    outcomes = sim.run(lambda _: row)
    check(outcomes, 60)
    assert sim.connection.counts.reconnects == 1
    assert remote(outcomes)[-20:] == list(range(40, 60))
    assert sim.mec.alone == 2


@kinds
def test_what_the_mec_does_not_hold_is_sent_once_more_and_counted(row: int) -> None:
    sim = StreamSimulation()

    def forget(number: int) -> None:
        if number == 10:
            sim.mec.receivers.drop(sim.mec.peer)

    outcomes = sim.run(lambda _: row, between=forget)
    check(outcomes, FRAMES)
    assert remote(outcomes) == list(range(FRAMES))
    assert (sim.mec.count(RejectReason.REFERENCE), sim.mec.alone) == (1, 2)
    assert outcomes[0].payload_bytes < outcomes[10].payload_bytes < outcomes[0].payload_bytes + 100
    assert sum(asdict(outcomes[10].breakdown_ms).values()) == pytest.approx(outcomes[10].latency_ms, abs=0.01)


@kinds
def test_a_mec_that_never_holds_anything_costs_two_payloads_a_frame_and_no_outcome(row: int) -> None:
    sim = StreamSimulation()
    sim.mec.reject = RejectReason.REFERENCE
    outcomes = sim.run(lambda _: row)
    check(outcomes, FRAMES)
    assert {outcome.status for outcome in outcomes} == {Status.FALLBACK}
    assert len(sim.mec.requests) <= 2 * FRAMES


@kinds
def test_too_late_for_a_second_time_is_a_fallback(row: int) -> None:
    sim = StreamSimulation(uplink_bps=[20_000.0], deadline_s=0.2, fps=2.0)  # 784 bytes take 0.3 s, 20 bytes 8 ms

    def forget(number: int) -> None:
        if number == 10:
            sim.mec.receivers.drop(sim.mec.peer)

    outcomes = sim.run(lambda _: row, between=forget)
    check(outcomes, FRAMES)
    assert outcomes[10].status is Status.FALLBACK
    assert outcomes[10].payload_bytes < 100
    assert remote(outcomes)[-8:] == list(range(12, 20))


@kinds
def test_replies_out_of_order_change_nothing(row: int) -> None:
    sim = StreamSimulation(fps=40.0, rtt_s=0.04, frames=40)
    sim.mec.slow = dict.fromkeys((10, 11, 20), 0.04)
    outcomes = sim.run(lambda _: row)
    check(outcomes, 40)
    assert remote(outcomes) == list(range(40))
    assert sim.mec.count(RejectReason.REFERENCE) == 0


@kinds
def test_frames_that_stay_local_and_other_resolutions_in_between_cost_nothing_more(row: int) -> None:
    sim = StreamSimulation(frames=30)
    rows = [row, row, FAST, FAST, FAST, row, SMALL, SMALL, row, FAST]
    outcomes = sim.run(lambda number: rows[number % len(rows)])
    check(outcomes, 30)
    assert {outcome.status for outcome in outcomes} == {Status.OK}
    assert sim.mec.alone == 2  # one for each stream
    assert sim.mec.count(RejectReason.REFERENCE) == 0


@pytest.mark.parametrize("seed", range(30))
def test_under_any_mixture_of_faults_every_frame_has_one_outcome_and_no_answer_is_wrong(seed: int) -> None:
    rng = random.Random(seed)
    sim = StreamSimulation(fps=rng.choice([5.0, 20.0, 40.0]), rtt_s=rng.choice([0.0, 0.05]), frames=80)
    reasons = [LOSE, RejectReason.BUSY, RejectReason.EXPIRED, RejectReason.REFERENCE, RejectReason.PAYLOAD]
    sim.mec.faults = {number: rng.choice(reasons) for number in range(1, 200) if rng.random() < 0.15}
    sim.mec.slow = {number: rng.uniform(0.0, 0.3) for number in range(1, 200) if rng.random() < 0.2}
    for _ in range(rng.randrange(3)):
        sim.mec.plan(sim.clock() + rng.uniform(0.5, 4.0), StreamMec.die)
    sim.mec.plan(sim.clock() + rng.uniform(1.0, 4.0), StreamMec.restart)

    def forget(_: int) -> None:
        if rng.random() < 0.05:
            sim.mec.receivers.drop(sim.mec.peer)

    outcomes = sim.run(lambda _: rng.choice([FREE, FREE, CHAINED, CHAINED, SMALL, FAST]), between=forget)
    check(outcomes, 80)
    sim.device.close()


def test_ids_that_begin_anew_are_still_references() -> None:
    sim = StreamSimulation()
    session = sim.connection._session
    session._last_id = wire.MAX_ID - 12
    outcomes = sim.run(lambda number: CHAINED if number % 2 else FREE)
    check(outcomes, FRAMES)
    assert remote(outcomes) == list(range(FRAMES))
    assert sim.mec.alone == 2
    assert any(request.request_id < 20 < wire.MAX_ID // 2 < request.reference_id for request in sim.mec.requests)


@kinds
def test_encoding_once_more_takes_as_long_as_on_the_emulated_device(row: int, monkeypatch: pytest.MonkeyPatch) -> None:
    sim = StreamSimulation(device_slowdown=20.0, deadline_s=0.5, fps=2.0)
    encode_again = Draft.encode_again

    def slowly(draft: Draft) -> None:
        encode_again(draft)
        sim.clock.advance(0.001)

    def forget(number: int) -> None:
        if number == 10:
            sim.mec.receivers.drop(sim.mec.peer)

    monkeypatch.setattr(Draft, "encode_again", slowly)
    outcomes = sim.run(lambda _: row, between=forget)
    check(outcomes, FRAMES)
    assert remote(outcomes) == list(range(FRAMES))
    took_ms = outcomes[10].breakdown_ms.uplink - outcomes[9].breakdown_ms.uplink
    assert took_ms > 20.0
    assert outcomes[10].energy_j > outcomes[9].energy_j
