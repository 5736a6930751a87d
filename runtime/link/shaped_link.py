"""Emulates an uplink with a recorded bandwidth trace, in user space: a first-in-first-out token bucket.

A message is passed on when, by the integral of the trace, its last bit has been sent, plus half the round trip; replies
are delayed by the other half. Its bits are those of ``controller.packets``: headers of ZeroMQ, TCP and IP count, and so
does the acknowledgement of what answers it, as if that were sent with it. The shaper runs in the device's loop, needs
no root rights, and computes as the twin does.
"""

from __future__ import annotations

import heapq
import itertools
from dataclasses import dataclass, field, replace

import numpy as np

from controller.packets import ping_bytes, wire_bytes
from controller.predict.uplink import TraceBank
from runtime.link.link import Arrival, Clock, Connected, Event, Link, Wake
from runtime.protocol import wire
from runtime.protocol.wire import Buffer

#: Most events that wait for their half of the round trip; the rest of a flood stays in the bounded socket.
_MOST_ON_THE_WAY = 256


@dataclass(frozen=True, slots=True)
class Crossing:
    """Start and end of a message's transmission."""

    start_s: float
    finish_s: float


@dataclass
class Shaper:
    """Computes transmission times. Owns when the uplink is free again. When the clock is at ``origin_s``, the trace is
    at ``trace_start_s``."""

    bank: TraceBank
    trace_index: int = 0
    trace_start_s: float = 0.0
    share_frac: float = 1.0
    origin_s: float = 0.0
    free_s: float = field(default=-np.inf, init=False)

    def cross(self, size_bytes: int, now_s: float) -> Crossing:
        """Queue a message behind earlier ones. Returns its transmission times."""
        start_s = max(now_s, self.free_s)
        shift_s = self.trace_start_s - self.origin_s
        bits = np.array([size_bytes * 8.0 / self.share_frac])
        finish = self.bank.finish_s(np.array([self.trace_index]), np.array([start_s + shift_s]), bits)
        self.free_s = float(finish[0]) - shift_s
        return Crossing(start_s, self.free_s)


class ShapedLink:
    """A link whose uplink is a Shaper. Owns the messages on their way up and the events on their way down."""

    def __init__(self, inner: Link, shaper: Shaper, rtt_s: float, clock: Clock, sealed: bool = False) -> None:
        """``sealed``: the inner link encrypts, so messages are larger."""
        self._inner, self._sealed = inner, sealed
        self._shaper = shaper
        self._half_rtt_s = rtt_s / 2
        self._clock = clock
        self._order = itertools.count()
        self._up: list[tuple[float, int, wire.Sendable, Buffer]] = []
        self._down: list[tuple[float, int, Event]] = []
        self._heard = False  # since the last ``connect``
        self.start(clock())  # until the frames start, the trace runs from here

    def start(self, origin_s: float) -> None:
        self._shaper.origin_s = origin_s

    def send(self, message: wire.Sendable, buffer: Buffer) -> float | None:
        now_s = self._clock()
        crossing = self._shaper.cross(_bytes_of(message, buffer, self._sealed), now_s)
        heapq.heappush(self._up, (crossing.finish_s + self._half_rtt_s, next(self._order), message, buffer))
        self._release(now_s)
        return crossing.finish_s - crossing.start_s

    def receive(self) -> list[Event]:
        now_s = self._clock()
        self._release(now_s)
        for event in self._inner.receive() if len(self._down) < _MOST_ON_THE_WAY else ():
            heapq.heappush(self._down, (now_s + self._half_rtt_s, next(self._order), event))
        events: list[Event] = []
        while self._down and self._down[0][0] <= now_s:
            due_s, _, event = heapq.heappop(self._down)
            events.append(replace(event, at_s=due_s) if isinstance(event, Arrival) else event)
        self._heard |= any(not isinstance(event, Connected) for event in events)
        return events

    def wait(self, until_s: float) -> None:
        for heap in (self._up, self._down):
            if heap:
                until_s = min(until_s, heap[0][0])
        self._inner.wait(until_s)

    def wake(self) -> Wake:
        inner = self._inner.wake()
        return replace(inner, at_s=min([inner.at_s, *(heap[0][0] for heap in (self._up, self._down) if heap)]))

    def connect(self) -> None:
        """Discard all messages on their way, which still occupy the uplink, and open a new connection. If the first
        answer over the present connection is on its way, that connection is kept."""
        if any(isinstance(event, Arrival) for _, _, event in self._down) and not self._heard:
            return
        self._forget()
        self._inner.connect()

    def disconnect(self) -> None:
        self._forget()
        self._inner.disconnect()

    def tcp_state(self) -> None:
        """The kernel knows nothing of messages that wait here."""

    def trouble(self) -> str:
        return self._inner.trouble()

    def close(self) -> None:
        """Close the link. Payloads on their way are lost; messages without a payload (Bye) are sent."""
        for _, _, message, buffer in self._up:
            if not len(buffer):
                self._inner.send(message, buffer)
        self._up.clear()
        self._inner.close()

    def _forget(self) -> None:
        self._up.clear()
        self._down.clear()
        self._heard = False

    def _release(self, now_s: float) -> None:
        while self._up and self._up[0][0] <= now_s:
            _, _, message, buffer = heapq.heappop(self._up)
            self._inner.send(message, buffer)


def _bytes_of(message: wire.Sendable, buffer: Buffer, sealed: bool) -> int:
    """What the uplink carries for a message. One without a buffer counts as a ping; a hello is larger, but rare."""
    bytes_of = wire_bytes if isinstance(message, wire.InferRequest) else ping_bytes
    return bytes_of(len(buffer), sealed)
