"""The user-space uplink: payloads cross when the trace says so, in order, and replies take half a round trip."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from controller.packets import ping_bytes
from controller.predict.uplink import Trace, TraceBank
from runtime.link.link import Arrival, Event, NoConnection
from runtime.link.shaped_link import ShapedLink, Shaper
from runtime.protocol import wire

#: 1 Mbit/s for a second, then 8.
STEP = TraceBank([Trace("step", np.array([0.0, 1.0]), np.array([1e6, 8e6]), 1.0)])


def padding(on_wire: int) -> bytes:
    """Of a ping that takes so many bytes of the uplink."""
    size = next(size for size in range(on_wire) if ping_bytes(size) >= on_wire)
    assert ping_bytes(size) == on_wire
    return bytes(size)


class Echo:
    """An inner link that answers everything at once, or has no connection; time is set by hand."""

    def __init__(self) -> None:
        self.now_s = 0.0
        self.connected = True
        self.sent: list[tuple[float, wire.AnyMessage, int]] = []
        self.events: list[Event] = []
        self.closed = False
        self.connections = 1

    def clock(self) -> float:
        return self.now_s

    def start(self, origin_s: float) -> None: ...

    def send(self, message: wire.AnyMessage, buffer: wire.Buffer) -> None:
        self.sent.append((self.now_s, message, len(buffer)))
        answer = Arrival(wire.Pong(1), b"", self.now_s)
        self.events.append(answer if self.connected else NoConnection())

    def receive(self) -> list[Event]:
        events, self.events = self.events, []
        return events

    def wait(self, until_s: float) -> None:
        self.now_s = max(self.now_s, until_s)

    def connect(self) -> None:
        self.events.clear()
        self.connections += 1

    def disconnect(self) -> None:
        self.events.clear()

    def tcp_state(self) -> None:
        pass

    def trouble(self) -> str:
        return ""

    def close(self) -> None:
        self.closed = True


def shaped(rtt_s: float = 0.0, share_frac: float = 1.0) -> tuple[ShapedLink, Echo]:
    inner = Echo()
    return ShapedLink(inner, Shaper(STEP, share_frac=share_frac), rtt_s, inner.clock), inner


def first_event(link: ShapedLink, inner: Echo) -> tuple[float, Event]:
    for _ in range(10):
        if events := link.receive():
            return inner.now_s, events[0]
        link.wait(math.inf)
    raise AssertionError("nothing arrived")


def test_a_payload_takes_its_bits_over_the_bandwidth_plus_the_round_trip() -> None:
    link, inner = shaped(rtt_s=0.02)
    assert link.send(wire.Ping(1), padding(12_500)) == pytest.approx(0.1)
    at_s, event = first_event(link, inner)
    assert inner.sent[0][0] == pytest.approx(0.11)
    assert at_s == pytest.approx(0.12)
    assert isinstance(event, Arrival)
    assert event.at_s == pytest.approx(0.12)


def test_a_payload_may_span_a_change_of_bandwidth() -> None:
    shaper = Shaper(STEP)
    crossing = shaper.cross(187_500, 0.5)  # 1.5 Mbit: half of one in the first half second, then 8 Mbit/s
    assert crossing.finish_s == pytest.approx(1.125)


def test_everything_queues_behind_the_payloads_before_it() -> None:
    link, inner = shaped()
    link.send(wire.Ping(1), padding(12_500))
    link.send(wire.Ping(2), padding(12_500))
    link.send(wire.Ping(3), b"")
    while len(inner.sent) < 3:
        link.wait(math.inf)
        link.receive()
    order = [(round(at_s, 6), message.ping_id) for at_s, message, _ in inner.sent]  # type: ignore[union-attr]
    assert order == [(0.1, 1), (0.2, 2), (round(0.2 + ping_bytes(0) * 8e-6, 6), 3)]


def test_a_share_of_the_uplink_is_slower_by_that_share() -> None:
    assert shaped(share_frac=0.1)[0].send(wire.Ping(1), padding(1250)) == pytest.approx(0.1)


def test_the_trace_starts_with_the_first_frame() -> None:
    link, inner = shaped()
    inner.now_s = 50.5
    link.start(49.5)
    assert link.send(wire.Ping(1), padding(100_000)) == pytest.approx(0.1)


def test_a_lost_connection_is_told() -> None:
    link, inner = shaped()
    inner.connected = False
    link.send(wire.Ping(1), padding(1250))
    assert isinstance(first_event(link, inner)[1], NoConnection)


def test_a_new_connection_carries_nothing_of_the_old_one_but_waits_behind_its_bytes() -> None:
    link, inner = shaped(rtt_s=0.02)
    link.send(wire.Ping(1), padding(12_500))  # 100 ms
    link.connect()
    link.send(wire.Ping(2), b"")
    while not inner.sent:
        link.wait(math.inf)
        link.receive()
    assert [message for _, message, _ in inner.sent] == [wire.Ping(2)]
    assert inner.now_s == pytest.approx(0.11 + ping_bytes(0) * 8e-6)
    assert inner.connections == 2


def test_what_was_on_its_way_back_over_an_old_connection_is_not_heard() -> None:
    link, inner = shaped(rtt_s=0.02)
    link.send(wire.Ping(1), b"")
    first_event(link, inner)
    link.send(wire.Ping(2), b"")
    inner.wait(inner.now_s + 0.011)
    assert link.receive() == []  # the answer has half a round trip to go
    link.connect()
    inner.wait(inner.now_s + 0.1)
    assert link.receive() == []


def test_while_the_first_answer_is_on_its_way_a_new_connection_is_not_made() -> None:
    link, inner = shaped(rtt_s=0.02)
    link.send(wire.Ping(1), b"")
    inner.wait(inner.now_s + 0.011)
    link.receive()
    link.connect()
    assert inner.connections == 1
    assert isinstance(first_event(link, inner)[1], Arrival)


def test_closing_lets_a_bye_out_but_no_payload() -> None:
    link, inner = shaped(rtt_s=0.02)
    link.send(wire.Ping(1), padding(1250))
    link.send(wire.Bye(), b"")
    link.close()
    assert [message for _, message, _ in inner.sent] == [wire.Bye()]
    assert inner.closed


@given(st.lists(st.tuples(st.floats(0, 0.5), st.integers(1, 50_000)), min_size=1, max_size=20))
def test_any_sequence_of_payloads_crosses_in_order_at_no_more_than_the_bandwidth(
    gaps: list[tuple[float, int]],
) -> None:
    shaper, now_s, crossings = Shaper(STEP), 0.0, []
    for gap_s, size in gaps:
        now_s += gap_s
        crossings.append((now_s, size, shaper.cross(size, now_s)))
    previous = -math.inf
    for asked_s, size, crossing in crossings:
        assert crossing.start_s == max(asked_s, previous)
        rate_bps = size * 8 / (crossing.finish_s - crossing.start_s)
        assert 1e6 * (1 - 1e-6) <= rate_bps <= 8e6 * (1 + 1e-6)
        previous = crossing.finish_s
