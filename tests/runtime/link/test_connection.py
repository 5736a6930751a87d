"""The connection to one MEC in simulated time: what it reports of jobs, of the link and of itself."""

from __future__ import annotations

import numpy as np
import pytest
from support.simulated import HELD, OFFLOAD, PAYLOAD_BYTES, RTT_S, UPLINK_BPS, SimClock, SimMec, table

from controller.packets import wire_bytes
from controller.predict.uplink import Trace, TraceBank
from runtime.link.connection import Lost, MecConnection, Offload, Replied
from runtime.link.shaped_link import ShapedLink, Shaper
from runtime.protocol import wire
from runtime.protocol.device_session import SILENCE_S, DeviceSession

REQUEST = Offload(OFFLOAD, OFFLOAD, (1, 1), bytes(PAYLOAD_BYTES), 1.0)


class Bench:
    """A connection, its MEC, and a clock that is moved by hand."""

    def __init__(self, max_in_flight: int = 4) -> None:
        self.clock, costs = SimClock(), table()
        self.mec = SimMec(self.clock, costs)
        bank = TraceBank([Trace("sim", np.zeros(1), np.array([UPLINK_BPS]), 1.0)])
        self.connection: MecConnection[str] = MecConnection(
            "tcp://sim:1",
            ShapedLink(self.mec, Shaper(bank), RTT_S, self.clock),
            DeviceSession("sim", HELD),
            costs,
            max_in_flight=max_in_flight,
            clock=self.clock,
        )

    def run(self, duration_s: float) -> list[Replied[str] | Lost[str]]:
        """What becomes of jobs in this time."""
        events, end_s = self.connection.poll(), self.clock() + duration_s
        while self.clock() < end_s:
            self.connection.wait(end_s)
            events += self.connection.poll()
        return events

    def offload(self, job: str) -> None:
        self.connection.offload(job, REQUEST, self.clock())


@pytest.fixture
def bench() -> Bench:
    bench = Bench()
    bench.run(0.1)
    return bench


def test_it_is_up_when_the_first_probe_has_returned() -> None:
    bench = Bench()
    assert (bench.connection.is_greeting, bench.connection.is_up) == (True, False)
    bench.run(RTT_S + 0.001)
    assert (bench.connection.is_probing, bench.connection.is_up, bench.connection.takes_more) == (True, False, False)
    bench.run(0.1)
    assert (bench.connection.is_probing, bench.connection.is_up, bench.connection.takes_more) == (False, True, True)
    assert bench.connection.uplink_bps == pytest.approx(UPLINK_BPS, rel=0.05)


def test_a_job_comes_back_once_with_where_its_time_went(bench: Bench) -> None:
    sent_s = bench.clock()
    bench.offload("job")
    assert bench.connection.in_flight == ("job",)
    (reply,) = bench.run(1.0)
    assert isinstance(reply, Replied)
    assert (reply.job, bytes(reply.outputs)) == ("job", bytes([OFFLOAD] * 4))
    uplink_s = wire_bytes(PAYLOAD_BYTES) * 8 / UPLINK_BPS + 0.005
    assert (reply.uplink_s, reply.tail_s, reply.downlink_s) == pytest.approx((uplink_s, 0.004, 0.005), abs=1e-4)
    assert bench.connection.in_flight == ()
    assert bench.connection.observe(sent_s).uplink_sample_count == 2


def test_a_job_that_a_busy_mec_does_not_queue_is_lost_at_once_and_shows_its_queue_and_the_uplink(bench: Bench) -> None:
    bench.mec.reject, bench.mec.reject_queue_us = wire.RejectReason.BUSY, 300_000
    bench.offload("job")
    assert bench.run(0.05) == [Lost("job", False)]
    seen = bench.connection.observe(bench.clock())
    assert seen.mec_queue_s == pytest.approx(0.3)
    assert seen.uplink_bps[0] == pytest.approx(UPLINK_BPS, rel=0.05)
    assert seen.replied_s == pytest.approx(wire_bytes(PAYLOAD_BYTES) * 8 / UPLINK_BPS + RTT_S + 0.3, abs=1e-3)


def test_a_released_job_does_not_come_back_but_its_reply_teaches(bench: Bench) -> None:
    bench.offload("first")
    bench.offload("second")
    bench.connection.release("first")
    assert [event.job for event in bench.run(1.0)] == ["second"]
    assert bench.connection.observe(bench.clock()).uplink_sample_count == 3


def test_a_rejected_job_is_lost_and_so_are_all_when_the_link_goes_down(bench: Bench) -> None:
    bench.mec.reject = wire.RejectReason.BUSY
    bench.offload("rejected")
    assert bench.run(0.1) == [Lost("rejected")]
    bench.mec.hung = True
    bench.offload("one")
    bench.offload("other")
    assert bench.run(SILENCE_S + 1.0) == [Lost("one"), Lost("other")]
    assert not bench.connection.is_up
    assert bench.connection.counts.link_downs == 1


def test_it_takes_no_more_than_may_be_in_flight(bench: Bench) -> None:
    for number in range(4):
        assert bench.connection.takes_more
        bench.offload(str(number))
    assert bench.connection.is_full
    assert not bench.connection.takes_more
    bench.run(1.0)
    assert bench.connection.takes_more


def test_an_overdue_job_is_forgotten_when_the_mec_is_heard_again(bench: Bench) -> None:
    bench.offload("job")
    bench.connection.note_overdue("another")
    assert not bench.connection.is_overdue
    bench.connection.note_overdue("job")
    assert bench.connection.is_overdue
    bench.run(0.5)  # the reply comes
    assert not bench.connection.is_overdue


def test_an_idle_uplink_is_probed_and_a_used_one_is_not(bench: Bench) -> None:
    samples = bench.connection.observe(bench.clock()).uplink_sample_count
    bench.connection.probe_if_stale(bench.clock())
    bench.run(3.0)
    assert bench.connection.observe(bench.clock()).uplink_sample_count == samples
    bench.connection.probe_if_stale(bench.clock())
    bench.run(0.1)
    assert bench.connection.observe(bench.clock()).uplink_sample_count == samples + 1


def test_it_leaves_with_a_bye_and_may_be_closed_twice(bench: Bench) -> None:
    bench.connection.close()
    bench.connection.close()
    assert not bench.connection.is_up
