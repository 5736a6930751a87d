"""The device's loop in simulated time: the timeline of a frame, and what happens when the MEC does not play along."""

from __future__ import annotations

import dataclasses
import itertools
import random
from collections import Counter
from dataclasses import astuple

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.simulated import (
    FAST,
    GOOD,
    HELD,
    MESSAGE_BYTES,
    OFFLOAD,
    RTT_S,
    SPLIT,
    UPLINK_BPS,
    SimCompute,
    SimMec,
    Simulation,
)

from controller.records import Outcome, Status
from controller.scenario import HEAD_NOISE_FRAC
from controller.timeline import FALLBACK_MARGIN, FALLBACK_SLACK_S, MAX_UNANSWERED
from runtime.config.sections.device import LimitsSection
from runtime.protocol import wire

#: What the fastest local answer keeps back of the deadline.
RESERVE_MS = (FALLBACK_MARGIN * 0.005 + FALLBACK_SLACK_S) * 1e3
#: Head, transmission, round trip and tail of the full offload.
OFFLOAD_MS = 1 + MESSAGE_BYTES * 8e3 / UPLINK_BPS + RTT_S * 1e3 + 4


@pytest.fixture
def even_heads(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every emulated head takes exactly its time."""
    monkeypatch.setattr("runtime.device.emulation.HEAD_NOISE_FRAC", 0.0)


def statuses(outcomes: list[Outcome]) -> Counter[Status]:
    return Counter(outcome.status for outcome in outcomes)


class TestTimeline:
    def test_an_offloaded_frame_takes_head_uplink_tail_and_round_trip(self) -> None:
        outcomes = Simulation().run(lambda _: OFFLOAD)
        assert statuses(outcomes) == {Status.OK: 20}
        breakdown = outcomes[3].breakdown_ms
        assert outcomes[3].latency_ms == pytest.approx(OFFLOAD_MS)
        assert astuple(breakdown) == pytest.approx((0, 0, 1, 15, 0, 4, 5), abs=0.01)

    @pytest.mark.parametrize("row", [FAST, GOOD, OFFLOAD, SPLIT])
    def test_the_terms_of_the_breakdown_add_up_to_the_latency(self, row: int) -> None:
        for outcome in Simulation(fps=25.0).run(lambda _: row):
            assert sum(astuple(outcome.breakdown_ms)) == pytest.approx(outcome.latency_ms, abs=0.01)

    def test_a_local_frame_is_ok_within_the_deadline_and_late_beyond(self) -> None:
        assert statuses(Simulation(deadline_s=0.041).run(lambda _: GOOD)) == {Status.OK: 20}
        assert statuses(Simulation(deadline_s=0.039).run(lambda _: GOOD)) == {Status.LATE: 20}

    def test_a_full_queue_drops_its_oldest_frame_at_once(self) -> None:
        sim = Simulation(fps=90.0, frames=8)
        outcomes = sim.run(lambda _: GOOD)  # 40 ms each, a frame every 11 ms
        assert [o.frame for o in outcomes if o.status is Status.DROPPED] == [1, 3, 4, 5]
        dropped = outcomes[1]
        assert dropped.decision is None
        assert dropped.score == 0
        assert dropped.prediction is None
        assert dropped.truth == 1
        assert dropped.utility == pytest.approx(-0.1)
        assert dropped.latency_ms <= 40

    def test_heads_run_while_replies_are_awaited(self) -> None:
        sim = Simulation(fps=50.0, rtt_s=0.03, frames=8)
        outcomes = sim.run(lambda _: OFFLOAD)
        assert statuses(outcomes) == {Status.OK: 8}
        began = [at_s for at_s, _, _ in sim.compute.ran]
        assert max(b - a for a, b in itertools.pairwise(began)) < 0.021

    def test_no_more_requests_wait_than_may(self) -> None:
        sim = Simulation(fps=200.0, frames=30, limits=LimitsSection(max_in_flight=3))
        seen = []
        sim.run(lambda _: OFFLOAD, lambda _: seen.append(sim.seen.in_flight))
        assert max(seen) == 3

    def test_a_hopeless_uplink_is_handed_no_more_than_it_may_hold(self) -> None:
        sim = Simulation(uplink_bps=[2e4], fps=20.0, frames=60)  # half a second for each payload
        seen: list[float] = []
        outcomes = sim.run(lambda _: OFFLOAD, lambda _: seen.append(sim.seen.uplink_backlog_bytes / MESSAGE_BYTES))
        assert 0 < max(seen) < MAX_UNANSWERED  # the first one that is overdue is sign enough
        assert statuses(outcomes) == {Status.FALLBACK: 60}

    def test_a_device_that_is_too_slow_alone_hands_its_uplink_no_more_than_it_may_hold(self) -> None:
        sim = Simulation(uplink_bps=[2e4], fps=20.0, frames=60, device_slowdown=60.0, deadline_s=0.25)
        seen: list[float] = []
        sim.run(lambda _: OFFLOAD, lambda _: seen.append(sim.seen.uplink_backlog_bytes / MESSAGE_BYTES))
        assert max(seen) == MAX_UNANSWERED

    def test_payloads_queue_on_the_uplink(self) -> None:
        outcomes = Simulation(uplink_bps=[0.25e6], fps=30.0, frames=4, deadline_s=0.5).run(lambda _: OFFLOAD)
        assert [round(o.breakdown_ms.uplink) for o in outcomes] == [45, 52, 58, 65]

    def test_emulated_heads_vary_around_their_time(self) -> None:
        outcomes = Simulation(device_slowdown=6.0, frames=200).run(lambda _: FAST)
        apart = np.log([outcome.breakdown_ms.head / 30.0 for outcome in outcomes])
        assert (apart.mean(), apart.std()) == pytest.approx((0.0, HEAD_NOISE_FRAC), abs=0.01)

    @pytest.mark.usefixtures("even_heads")
    def test_a_slow_device_is_emulated_with_its_load(self) -> None:
        (outcome,) = Simulation(device_slowdown=6.0, frames=1).run(lambda _: FAST)
        assert outcome.breakdown_ms.head == pytest.approx(30.0, abs=0.01)
        sim = Simulation(device_slowdown=6.0, device_load_frac=0.5, frames=1, seed=3)
        load = float(sim.scenario.device_load()[0])
        (outcome,) = sim.run(lambda _: FAST)
        assert outcome.breakdown_ms.head == pytest.approx(30.0 / (1 - load), abs=0.01)

    def test_energy_is_device_time_and_transmission(self) -> None:
        outcome = Simulation().run(lambda _: OFFLOAD)[2]
        assert outcome.energy_j == pytest.approx(3.3 * 0.001 + 1.2 * 0.01, abs=1e-6)
        assert outcome.utility == pytest.approx(1 - 0.05 * outcome.energy_j, abs=1e-6)

    def test_a_closed_loop_captures_when_the_last_frame_was_answered(self) -> None:
        sim = Simulation(closed_loop=True, frames=10)
        assert all(o.latency_ms == pytest.approx(OFFLOAD_MS) for o in sim.run(lambda _: OFFLOAD))
        assert sim.compute.ran[-1][0] - sim.compute.ran[0][0] == pytest.approx(9 * OFFLOAD_MS / 1e3, rel=1e-3)

    def test_stopping_serves_what_was_captured_and_nothing_more(self) -> None:
        sim = Simulation(frames=1000)
        outcomes = sim.run(lambda _: OFFLOAD, lambda n: sim.device.stop() if n == 5 else None)
        assert len(outcomes) == 6
        assert statuses(outcomes) == {Status.OK: 6}

    def test_what_is_not_done_soon_after_stopping_is_given_up(self) -> None:
        """A head that is emulated for minutes, and a frame that waits for it."""
        sim = Simulation(frames=1000, device_slowdown=1e5, deadline_s=10.0)
        sim.device.next_decision()
        stop_s = sim.clock() + 0.3
        wait = sim.mec.wait

        def waited(until_s: float) -> None:
            wait(min(until_s, stop_s) if sim.clock() < stop_s else until_s)
            if sim.clock() >= stop_s:
                sim.device.stop()

        sim.mec.wait = waited  # type: ignore[method-assign]
        sim.device.execute(GOOD)
        assert sim.device.next_decision() is None
        assert sim.clock() - stop_s < 1.0
        outcomes = sim.device.take_outcomes()
        assert {(outcome.status, outcome.prediction) for outcome in outcomes} <= {
            (Status.LATE, None),
            (Status.DROPPED, None),
        }

    def test_closing_in_mid_flight_still_ends_every_frame_once(self) -> None:
        sim = Simulation(frames=50)
        sim.device.next_decision()
        sim.device.execute(OFFLOAD)
        sim.device.close()
        sim.device.close()
        (outcome,) = sim.device.take_outcomes()
        assert (outcome.status, outcome.prediction) == (Status.LATE, None)


class TestFallback:
    def test_silence_is_answered_locally_just_before_the_deadline(self) -> None:
        sim = Simulation(frames=1)
        (outcome,) = sim.run(lambda _: OFFLOAD, lambda _: setattr(sim.mec, "hung", True))
        assert outcome.status is Status.FALLBACK
        assert outcome.prediction == FAST
        assert outcome.latency_ms == pytest.approx(100 - RESERVE_MS + 5, abs=0.1)
        assert outcome.decision == sim.costs.space.decisions[OFFLOAD]

    def test_a_rejection_is_answered_at_once_with_the_best_that_fits(self) -> None:
        sim = Simulation(frames=1)
        sim.mec.reject = wire.RejectReason.BUSY
        (outcome,) = sim.run(lambda _: OFFLOAD)
        assert (outcome.status, outcome.prediction) == (Status.FALLBACK, GOOD)
        assert outcome.latency_ms == pytest.approx(1 + 10 + RTT_S * 1e3 + 40, abs=0.1)

    def test_no_head_is_wasted_on_a_link_known_to_be_down(self) -> None:
        sim = Simulation()
        sim.mec.reachable = False
        outcomes = sim.run(lambda _: SPLIT)
        assert statuses(outcomes) == {Status.FALLBACK: 20}
        assert {row for _, _, row in sim.compute.ran} == {GOOD}

    def test_a_weak_device_without_mec_gives_its_fastest_answer_even_late(self) -> None:
        sim = Simulation(deadline_s=0.004)
        sim.mec.reachable = False
        outcomes = sim.run(lambda _: OFFLOAD)
        assert statuses(outcomes) == {Status.LATE: 20}
        assert outcomes[0].prediction == FAST

    def test_it_preempts_the_head_of_a_later_frame(self) -> None:
        """Frame 0 falls back while the long head of frame 1 runs, which therefore ends later by as much."""
        sim = Simulation(frames=2, fps=1 / 0.077)
        outcomes = sim.run(lambda n: (OFFLOAD, GOOD)[n], lambda n: setattr(sim.mec, "hung", n == 0))
        assert [o.status for o in outcomes] == [Status.FALLBACK, Status.OK]
        assert [row for _, _, row in sim.compute.ran] == [OFFLOAD, GOOD, FAST]
        assert outcomes[0].latency_ms <= 100
        assert outcomes[1].breakdown_ms.head == pytest.approx(45, abs=0.1)

    @pytest.mark.usefixtures("even_heads")
    def test_preemption_also_moves_the_end_of_an_emulated_head(self) -> None:
        sim = Simulation(frames=2, fps=1 / 0.06, device_slowdown=4.0, deadline_s=0.15)
        outcomes = sim.run(lambda n: (OFFLOAD, SPLIT)[n], lambda n: setattr(sim.mec, "hung", n == 0))
        assert outcomes[0].status is Status.FALLBACK
        head_ms, fallback_ms = 30 * 4, 5 * 4
        assert outcomes[1].breakdown_ms.head == pytest.approx(head_ms + fallback_ms, abs=0.1)

    def test_a_head_that_ends_too_late_for_a_fallback_waits_for_its_reply(self) -> None:
        (outcome,) = Simulation(frames=1, deadline_s=0.035).run(lambda _: SPLIT)
        assert (outcome.status, outcome.prediction) == (Status.LATE, SPLIT)
        assert outcome.latency_ms == pytest.approx(30 + 10 + 10 + 2)

    def test_such_a_frame_is_given_up_after_two_deadlines(self) -> None:
        sim = Simulation(frames=1, deadline_s=0.035)
        (outcome,) = sim.run(lambda _: SPLIT, lambda _: setattr(sim.mec, "hung", True))
        assert (outcome.status, outcome.prediction, outcome.score) == (Status.LATE, None, 0)
        assert outcome.latency_ms == pytest.approx(70, abs=0.1)

    def test_two_fallbacks_run_one_after_the_other(self) -> None:
        sim = Simulation(frames=4, fps=500.0, deadline_s=0.05)
        outcomes = sim.run(lambda _: OFFLOAD, lambda _: setattr(sim.mec, "hung", True))
        assert set(statuses(outcomes)) <= {Status.FALLBACK, Status.LATE}
        began = [at_s for at_s, _, row in sim.compute.ran if row != OFFLOAD]
        assert min(b - a for a, b in itertools.pairwise(began)) >= 0.005 - 1e-9

    def test_a_reply_after_the_fallback_changes_no_outcome_but_teaches_the_bandwidth(self) -> None:
        sim = Simulation(frames=4, fps=2.0, uplink_bps=[8e6, 0.08e6, 0.08e6, 0.08e6])
        sim.device.next_decision()
        sim.clock.advance(1.0)
        sim.device.execute(OFFLOAD)
        state = sim.device.next_decision()
        assert state is not None
        outcomes = sim.device.take_outcomes()
        assert [o.status for o in outcomes] == [Status.LATE]
        while state is not None and state.uplink_bps[0, 0] > 1e6:
            sim.device.execute(FAST)
            state = sim.device.next_decision()
        assert state is not None
        assert state.uplink_bps[0, 0] == pytest.approx(0.08e6, rel=0.1)  # a ping may have crossed before it
        assert [o.frame for o in sim.device.take_outcomes()].count(0) == 0

    @pytest.mark.parametrize("slept_s", [0.15, 0.25, 2.0])
    def test_a_device_that_was_suspended_while_a_reply_was_due_goes_on(self, slept_s: float) -> None:
        """The moments of falling back and of giving up may pass together."""
        sim = Simulation(frames=60)

        def suspend(mec: SimMec) -> None:
            mec.hung = True  # the request of frame 5 is on its way
            sim.clock.advance(slept_s)
            mec.plan(sim.clock() + 0.1, lambda mec: setattr(mec, "hung", False))

        def at_frame_5(number: int) -> None:
            if number == 5:
                sim.mec.plan(sim.clock() + 0.005, suspend)

        outcomes = sim.run(lambda _: OFFLOAD, at_frame_5)
        assert outcomes[5].status is not Status.OK
        assert [o.frame for o in outcomes if o.status is Status.OK][-2:] == [58, 59]


class TestTelemetry:
    @pytest.mark.parametrize("slowdown", [1.0, 15.0])
    @pytest.mark.parametrize("fps", [10.0, 80.0])
    def test_a_sample_is_the_uplinks_bandwidth_whatever_the_mec_and_the_backlog(
        self, slowdown: float, fps: float, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(SimCompute, "STEPS", 400)  # a reply is timed when the device looks
        sim = Simulation(fps=fps, deadline_s=0.4)
        sim.mec.slowdown = slowdown
        sim.run(lambda _: OFFLOAD)
        samples = list(sim.seen.uplink_bps)
        assert samples == pytest.approx([UPLINK_BPS] * 8, rel=0.02)

    def test_the_first_state_knows_the_link_from_a_probe(self) -> None:
        sim = Simulation()
        state = sim.device.next_decision()
        assert state is not None
        assert state.link_up[0]
        assert state.uplink_sample_count[0] == 1
        assert state.uplink_bps[0] == pytest.approx([UPLINK_BPS] * 8, rel=0.05)
        assert state.rtt_s[0] == pytest.approx(RTT_S)
        assert state.frame_age_s[0] == 0
        assert state.in_flight[0] == 0
        assert sim.clock() - 100.0 < 0.05

    @pytest.mark.usefixtures("even_heads")
    def test_slowdowns_are_learnt_from_measured_times(self) -> None:
        sim = Simulation(frames=40, device_slowdown=3.0)
        sim.mec.slowdown = 2.0
        sim.run(lambda _: OFFLOAD)
        assert sim.states[-1].device_slowdown[0] == pytest.approx(3.0, rel=0.01)
        assert sim.seen.mec_slowdown == pytest.approx(2.0, rel=0.01)

    def test_a_request_that_expires_teaches_the_queue_and_the_bandwidth(self) -> None:
        sim = Simulation(frames=20, fps=20.0, deadline_s=0.1)
        sim.mec.slowdown = 100.0  # a tail takes the time of two answers, so the second request waits too long
        sim.run(lambda number: FAST if number > 1 else OFFLOAD)
        assert len(sim.mec.requests) == 2
        assert sim.seen.uplink_sample_count == 3
        assert sim.seen.mec_queue_s == pytest.approx(0.35, rel=0.05)
        assert sim.seen.uplink_bps[0] == pytest.approx(UPLINK_BPS, rel=0.02)
        assert sim.seen.mec_slowdown == pytest.approx(100.0)  # a request that never ran does not change it

    def test_the_backlog_is_what_has_not_been_heard_of(self) -> None:
        sim = Simulation(uplink_bps=[8e6, *[0.1e6] * 9], fps=50.0, deadline_s=10.0, frames=1000)
        backlog = []
        for _ in range(4):
            state = sim.device.next_decision()
            assert state is not None
            backlog.append(state.uplink_backlog_bytes[0])
            sim.clock.advance(1.0 if not backlog[1:] else 0.0)
            sim.device.execute(OFFLOAD)
        assert backlog == [0, MESSAGE_BYTES, 2 * MESSAGE_BYTES, 3 * MESSAGE_BYTES]

    @pytest.mark.parametrize("later_bps", [2e6, 2e4])
    def test_a_device_that_stays_local_goes_on_to_learn_what_its_uplink_carries(self, later_bps: float) -> None:
        sim = Simulation(uplink_bps=[UPLINK_BPS] * 4 + [later_bps] * 100, fps=10.0, frames=100)
        outcomes = sim.run(lambda _: FAST)
        assert statuses(outcomes) == {Status.OK: 100}
        assert sim.seen.uplink_sample_count == pytest.approx(5, abs=1)  # in 10 s
        assert sim.seen.uplink_bps[0] == pytest.approx(later_bps, rel=0.05)

    def test_an_uplink_in_use_is_not_probed(self) -> None:
        sim = Simulation(fps=10.0, frames=100)
        sim.run(lambda _: OFFLOAD)
        assert sim.seen.uplink_sample_count == 1 + 100

    def test_fallbacks_and_late_frames_show_in_the_state(self) -> None:
        sim = Simulation(frames=30)
        sim.mec.reject = wire.RejectReason.BUSY
        sim.run(lambda _: OFFLOAD)
        assert sim.states[-1].fallback_frac[0] > 0.9
        assert sim.states[-1].on_time_frac[0] == 1.0


class TestBadMec:
    @pytest.mark.parametrize(
        "spoil",
        [
            lambda reply: (reply, bytes(8)),
            lambda reply: (msgspec.structs.replace(reply, request_id=999_999), bytes(4)),
            lambda reply: (msgspec.structs.replace(reply, mec_us=5_000_000), bytes(4)),
            lambda reply: (wire.Hello("who", HELD), b""),
            lambda reply: (reply, np.full(1, np.nan, np.float32).tobytes()),
            lambda reply: (reply, np.full(1, -np.inf, np.float32).tobytes()),
            lambda reply: (reply, np.full(1, 1e30, np.float32).tobytes()),
            lambda reply: b"garbage",
        ],
        ids=["shape", "id", "time", "nan", "infinity", "absurd", "message", "bytes"],
    )
    def test_a_mec_that_lies_is_counted_and_costs_no_frame(self, spoil: object) -> None:
        sim = Simulation(frames=5)
        sim.mec.spoil = spoil  # type: ignore[assignment]
        outcomes = sim.run(lambda _: OFFLOAD)
        assert statuses(outcomes) == {Status.FALLBACK: 5}
        assert sim.device.counts.peer_faults == len(sim.mec.requests) >= 2

    def test_outputs_that_are_no_numbers_are_answered_locally_at_once(self) -> None:
        sim = Simulation(frames=5)
        sim.mec.spoil = lambda reply: (reply, np.full(1, np.nan, np.float32).tobytes())
        outcomes = sim.run(lambda _: OFFLOAD)
        assert all(outcome.latency_ms < OFFLOAD_MS + 45 for outcome in outcomes)

    def test_a_forgotten_connection_is_replaced_within_two_seconds_however_long_it_was_silent(self) -> None:
        for silent_frames in (10, 200, 3000):
            sim = Simulation(frames=silent_frames + 60, fps=10.0)

            def outage(number: int, sim: Simulation = sim, until: int = 20 + silent_frames) -> None:
                sim.mec.hung = 20 <= number < until
                sim.mec.forgotten |= number == 20  # only a new connection helps

            outcomes = sim.run(lambda _: OFFLOAD, outage)
            assert {o.status for o in outcomes[-20:]} == {Status.OK}
            back = min(o.frame for o in outcomes[20 + silent_frames :] if o.status is Status.OK)
            assert back - (20 + silent_frames) <= 20
            assert sim.device.counts.link_downs == 1

    def test_the_counts_tell_how_long_the_link_was_up(self) -> None:
        sim = Simulation(frames=100, fps=10.0)
        sim.run(lambda _: OFFLOAD, lambda number: setattr(sim.mec, "hung", 50 <= number < 80))
        counts = sim.device.counts
        assert counts.welcomed
        assert counts.up_frac == pytest.approx(0.7, abs=0.1)
        absent = Simulation(frames=20)
        absent.mec.reachable = False
        absent.run(lambda _: FAST)
        assert (absent.device.counts.welcomed, absent.device.counts.up_frac) == (False, 0.0)
        assert Simulation().device.counts.up_frac is None

    def test_nobody_there_is_told_once_and_then_once_a_minute(self) -> None:
        sim = Simulation(frames=1300, fps=10.0)
        sim.mec.reachable = False
        sim.run(lambda _: FAST)
        assert sim.log_lines == [
            "no MEC at tcp://sim:1 yet (connection refused): answering locally",
            "no MEC at tcp://sim:1 yet for 61 s (connection refused): answering locally",
            "no MEC at tcp://sim:1 yet for 121 s (connection refused): answering locally",
        ]

    def test_an_absent_mec_leaves_a_device_that_answers(self) -> None:
        sim = Simulation(frames=50)
        sim.mec.reachable = False
        assert statuses(sim.run(lambda n: (OFFLOAD, GOOD)[n % 2])) == {Status.FALLBACK: 25, Status.OK: 25}

    def test_a_mec_that_comes_back_is_used_again(self) -> None:
        sim = Simulation(frames=60)

        def outage(number: int) -> None:
            sim.mec.hung = 10 <= number < 30
            sim.mec.instance = int(number >= 30)  # it was restarted

        outcomes = sim.run(lambda _: OFFLOAD, outage)
        assert {o.status for o in outcomes[:10]} == {o.status for o in outcomes[-20:]} == {Status.OK}
        assert {o.status for o in outcomes[11:29]} == {Status.FALLBACK}
        assert sim.device.counts.link_downs == 1

    def test_a_link_that_was_silent_is_used_when_its_probe_has_told_what_it_carries(self) -> None:
        """Else a decision would rest on what it carried before, and its payload would be in the probe's sample."""
        slow_bps = UPLINK_BPS / 50
        sim = Simulation(uplink_bps=[UPLINK_BPS] * 3 + [slow_bps] * 100, fps=50.0, frames=300)
        known: list[float] = []

        def outage(number: int) -> None:
            sim.mec.hung = 100 <= number < 180
            if sim.seen.uplink_sample_count > len(known):
                known.append(sim.seen.uplink_bps[0])

        outcomes = sim.run(lambda number: OFFLOAD if number < 260 else FAST, outage)
        used = [outcome.frame for outcome in outcomes if outcome.frame > 180 and outcome.payload_bytes]
        ages_s = [now.uplink_age_s[0] for last, now in itertools.pairwise(sim.states) if now.link_up > last.link_up]
        assert used
        assert ages_s
        assert sim.device.counts.link_downs >= 1
        assert known[-1] == pytest.approx(slow_bps, rel=0.02)
        assert all(age_s < 0.1 for age_s in ages_s)

    def test_known_silence_shortens_the_answer(self) -> None:
        """At first each frame waits until the last moment; once the link is known to be down, none does."""
        sim = Simulation(frames=30)
        outcomes = sim.run(lambda _: OFFLOAD, lambda n: setattr(sim.mec, "hung", True))
        assert outcomes[0].latency_ms > 90
        assert outcomes[-1].latency_ms == pytest.approx(40, abs=0.1)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32), st.floats(2.0, 150.0), st.floats(0.01, 0.3), st.floats(0.02e6, 5e6))
def test_whatever_happens_each_frame_has_exactly_one_outcome(
    seed: int, fps: float, deadline_s: float, uplink_bps: float
) -> None:
    rng = random.Random(seed)
    sim = Simulation(fps=fps, deadline_s=deadline_s, uplink_bps=[uplink_bps, uplink_bps / 5], frames=40)

    def chaos(_: int) -> None:
        sim.mec.hung = rng.random() < 0.2
        sim.mec.reachable = rng.random() > 0.1
        sim.mec.slowdown = rng.choice([1.0, 1.0, 30.0])
        sim.mec.reject = rng.choice([None, None, None, *wire.RejectReason])
        sim.mec.spoil = rng.choice([None, None, lambda reply: b"garbage"])
        sim.mec.instance += rng.random() < 0.05

    outcomes = sim.run(lambda _: rng.randrange(4), chaos)
    assert len(outcomes) == 40
    for outcome in outcomes:
        assert outcome.latency_ms >= 0
        assert 0 <= outcome.score <= 1
        on_time = outcome.status.on_time
        assert not on_time or outcome.latency_ms <= outcome.deadline_ms + 1e-3
        assert (outcome.decision is not None) == outcome.status.has_decision
        assert all(getattr(outcome.breakdown_ms, f.name) >= 0 for f in dataclasses.fields(outcome.breakdown_ms))
