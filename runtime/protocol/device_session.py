"""The device's side of the protocol: the state of its link to one MEC. Events in, actions out, no I/O.

Theory of operation. The link is WAITING while the device sends Hello and no MEC has answered. A Welcome makes it UP.
While it is up the device pings every ``heartbeat_s`` if it sends nothing else, and every ``RAREST_HEARTBEAT_S`` if it
does, because only a bare ping measures the round trip. When ``SILENCE_S`` has passed without an answer to anything it
sent, the link is DOWN, and everything in flight is lost. Silence counts from the first message sent after the MEC was
last heard, less the time by which ticks were late: a device that was suspended itself does not blame the MEC. A MEC
with another bundle makes the link REFUSED; the device asks again at long intervals, because the MEC may be redeployed.

A link that is not up gets a new connection at once, and another one every ``RETRY_S`` until a MEC answers. A device
cannot find out whether its old connection is slow, was forgotten by a router, or leads to a dead host. It sends Hello
at every heartbeat and whenever a connection was made. Any legal message brings a DOWN link back UP.

The table at the end says which message is legal in which state. Three rules are checked elsewhere. A reply must belong
to an open request (an older id is a late or repeated reply; an id that was never issued is a fault). Its outputs must
be finite and of the expected shape. It cannot claim more time at the MEC than has passed here. A MEC that breaks a rule
costs the request that it named, never the session. One that does so often, that floods the device, or that leaves as
soon as it has accepted the device is disconnected for a while (``runtime.protocol.conduct``).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from controller.errors import RemoteProtocolError
from controller.timeline import HEARTBEAT_S, RAREST_HEARTBEAT_S, SILENCE_S
from runtime.protocol import wire
from runtime.protocol.conduct import Conduct
from runtime.protocol.device_actions import (
    Actions,
    Answered,
    Busy,
    Disconnect,
    Echoed,
    Expired,
    LinkChanged,
    LinkState,
    PeerFault,
    Reconnect,
    Transmit,
    Unanswered,
    UnknownReference,
)
from runtime.protocol.old_wire import OLD_VERSIONS, old_hello
from runtime.protocol.wire import Buffer

#: Interval between new connections while no MEC answers.
RETRY_S = 0.75
REFUSED_RETRY_S = 2.0
#: Every this many hellos without an answer, one is sent in an old version's format, because an old MEC ignores ours.
_HELLOS_BEFORE_OLD = 4
#: A reply may claim this much more time than has passed here: live training stops the device's clock during updates
#: while the MEC's runs on. A smaller error only makes one bandwidth sample too large.
_TIME_SLACK_MS = 250.0
#: Far above the outputs of any exit: larger values were forged or corrupted.
_LARGEST_OUTPUT = 1e6


@dataclass(frozen=True, slots=True)
class _Open:
    """A request that was sent and not answered."""

    sent_s: float
    output_shape: tuple[int, ...]

    def implausible_time(self, claimed_ms: float, now_s: float) -> str:
        """Error text if the MEC claims more time for the request than has passed here, else ""."""
        elapsed_ms = (now_s - self.sent_s) * 1e3
        plausible = claimed_ms <= elapsed_ms + _TIME_SLACK_MS
        return "" if plausible else f"got {claimed_ms:.1f} ms at the MEC; expected at most {elapsed_ms:.1f}"


class DeviceSession:
    """The protocol state of one device towards one MEC. Owns request ids, open requests and the link's state."""

    def __init__(self, device: str, held: wire.Held) -> None:
        self.state = LinkState.WAITING
        self.mec_slowdown = 1.0
        self.heartbeat_s = HEARTBEAT_S  # the owner of the session may set what the link can bear
        self.faults = 0
        self.stale_replies = 0
        self._hello = wire.Hello(device, held)
        self._held = held
        self._hellos = 0  # since the MEC was last heard
        self._instance = ""
        self._open: dict[int, _Open] = {}  # in the order of sending
        self._pings: dict[int, tuple[float, int]] = {}  # id -> sent at, padding
        self._last_id = 0
        self._unheard_since_s: float | None = None
        self._next_tick_s = -math.inf
        self._sent_s = self._pinged_s = -math.inf  # when anything was sent last, and when a bare ping
        self._retry_s = math.inf  # when to ask for a new connection; the first one is there from the start
        self._up_s = math.inf  # since when the link is up
        self._heard_since_up = False  # a MEC that only sends Welcome may be filling our memory with half a message
        self._now_s = 0.0  # of the last event that had a time
        self._deaf = False  # messages still arrive over a connection that was given up
        self._conduct = Conduct()

    # Events of the device -----------------------------------------------------------------------------------

    def request(self, request: wire.InferRequest, output_shape: tuple[int, ...], now_s: float) -> None:
        """The device sends this request; its id came from ``next_id``."""
        self._open[request.request_id] = _Open(now_s, output_shape)
        self._sent(now_s)

    def next_id(self) -> int:
        self._last_id = wire.next_id(self._last_id)
        return self._last_id

    def probe(self, padding_bytes: int, now_s: float) -> Actions:
        """Ping with padding; its echo measures the uplink."""
        ping_id = self.next_id()
        self._pings[ping_id] = (now_s, padding_bytes)
        self._sent(now_s)
        return [Transmit(wire.Ping(ping_id), bytes(padding_bytes))]

    def unsendable(self, now_s: float) -> Actions:
        """The connection is gone."""
        if self.state is LinkState.REFUSED:
            self._retry_s = self._next_tick_s = min(self._next_tick_s, now_s + HEARTBEAT_S)
        return self._ended("the connection is gone", now_s) if self.state is LinkState.UP else []

    def connected(self, now_s: float) -> None:
        """A connection was made: say hello at once, not at the next heartbeat."""
        if self.state in (LinkState.WAITING, LinkState.DOWN):
            self._next_tick_s = now_s

    def close(self) -> Actions:
        """Leave with a Bye; may be called twice."""
        leaving = self.state is LinkState.UP
        self.state = LinkState.CLOSED
        self._open.clear()
        return [Transmit(wire.Bye())] if leaving else []

    # Time ---------------------------------------------------------------------------------------------------

    @property
    def next_tick_s(self) -> float:
        """When ``tick`` has something to do."""
        return self._next_tick_s

    def tick(self, now_s: float) -> Actions:
        """Send Hello or Ping, or detect silence. Pass all received messages to ``receive`` first."""
        if now_s < self._next_tick_s or self.state is LinkState.CLOSED:
            return []
        self._now_s = now_s
        if self.state is not LinkState.UP:
            return self._seek(now_s)
        if self._silent_s(now_s) > SILENCE_S:
            why = f"nothing heard for {SILENCE_S} s"
            return self._down(why, now_s) if self._heard_since_up else self._ended(why, now_s)
        due_s = self._ping_due_s()
        self._next_tick_s = now_s + HEARTBEAT_S if now_s >= due_s else min(now_s + HEARTBEAT_S, due_s)
        if now_s < due_s:
            return []
        self._pinged_s = now_s
        return self.probe(0, now_s)

    def _ping_due_s(self) -> float:
        """When to ping next: soon while a request is open, because only that tells a busy MEC from a dead one."""
        period_s = HEARTBEAT_S if self._open else self.heartbeat_s
        return min(self._sent_s + period_s, self._pinged_s + RAREST_HEARTBEAT_S)

    def _seek(self, now_s: float) -> Actions:
        """Send Hello, over a new connection if the last one was not answered in time."""
        refused = self.state is LinkState.REFUSED
        again: Actions = [Reconnect()] if now_s >= self._retry_s else []
        self._deaf = self._deaf and not again
        if again or (not refused and math.isinf(self._retry_s)):
            self._retry_s = now_s + RETRY_S
        elif refused:
            self._retry_s = min(self._retry_s, now_s + RETRY_S)
        self._next_tick_s = min(now_s + (REFUSED_RETRY_S if refused else HEARTBEAT_S), self._retry_s)
        self._conduct.on_sent()
        return [*again, Transmit(self._hello), *self._old_hello()]

    def _old_hello(self) -> Actions:
        """A hello that an old MEC answers, in the format of each old version in turn."""
        self._hellos += 1
        turn, rest = divmod(self._hellos, _HELLOS_BEFORE_OLD)
        if rest or self.state is LinkState.REFUSED:
            return []
        return [Transmit(wire.Foreign(old_hello(OLD_VERSIONS[-turn % len(OLD_VERSIONS)])))]

    def _silent_s(self, now_s: float) -> float:
        """Seconds without an overdue answer. The time by which this tick is late does not count: the device slept."""
        if self._unheard_since_s is None:
            return 0.0
        asleep_from_s = max(self._next_tick_s, self._unheard_since_s)
        self._unheard_since_s += max(now_s - asleep_from_s, 0.0)
        return now_s - self._unheard_since_s

    # Messages of the MEC ------------------------------------------------------------------------------------

    def receive(self, message: wire.AnyMessage, buffer: Buffer, now_s: float) -> Actions:
        """Handle one decoded message; ``buffer`` is its payload, ``now_s`` its arrival."""
        if self._deaf:
            return []
        self._now_s = now_s
        self._conduct.on_received(now_s)
        return self._handled(message, buffer, now_s) + self._cut_off(now_s)

    def _handled(self, message: wire.AnyMessage, buffer: Buffer, now_s: float) -> Actions:
        handler = _TABLE.get((self.state, type(message)))
        if handler is None:
            return self._fault(f"got {type(message).__name__} while {self.state.value}; expected another message")
        self._unheard_since_s, self._hellos = None, 0
        self._heard_since_up |= self.state is LinkState.UP
        recovered = self.state is LinkState.DOWN and isinstance(message, wire.InferReply | wire.Pong)
        back = self._up("the MEC answers again", now_s) if recovered else []
        return back + handler(self, message, buffer, now_s)

    def malformed(self, error: RemoteProtocolError, now_s: float) -> Actions:
        """Bytes arrived that could not be decoded."""
        if self._deaf:
            return []
        self._now_s = now_s
        self._conduct.on_received(now_s)
        if isinstance(error, wire.OtherVersionError) and self.state not in (LinkState.UP, LinkState.CLOSED):
            which = f"the MEC speaks protocol {error.version}, this device {wire.VERSION}"
            return self._refused(f"{which}; install one version on both", now_s) + self._cut_off(now_s)
        return self._fault(str(error)) + self._cut_off(now_s)

    def _welcome(self, message: wire.Welcome, _: Buffer, now_s: float) -> Actions:
        if why := wire.difference(message.held, self._held):
            return self._refused(why, now_s)
        restarted = self._instance not in ("", message.instance)
        lost = self._lose_open("the MEC restarted") if restarted else []
        self._instance, self.mec_slowdown = message.instance, message.mec_slowdown
        return lost + ([] if self.state is LinkState.UP else self._up("the MEC accepted this device", now_s))

    def _reply(self, message: wire.InferReply, buffer: Buffer, now_s: float) -> Actions:
        request_id = message.request_id
        if not wire.was_issued(request_id, self._last_id):
            return self._fault(f"got a reply to request {request_id}; expected one of at most {self._last_id}")
        sent = self._open.pop(request_id, None)
        if sent is None:
            self.stale_replies += 1
            return []
        error = sent.implausible_time(message.queue_ms + message.mec_ms, now_s)
        if len(buffer) != 4 * math.prod(sent.output_shape):
            error = f"got outputs of {len(buffer)} bytes; expected shape {sent.output_shape} of float32"
        elif not _plausible(buffer):
            error = f"got outputs that are NaN or beyond {_LARGEST_OUTPUT:g}; expected those of a model"
        if error:
            return self._wrong_reply(request_id, error)
        self._conduct.on_good_reply()
        return [Answered(message, buffer)]

    def _reject(self, message: wire.Reject, _: Buffer, now_s: float) -> Actions:
        if message.reason is wire.RejectReason.DIGEST:
            return self._refused(message.text, now_s)
        if message.reason is wire.RejectReason.NO_SESSION:
            return self._forgotten("the MEC no longer knows this device", now_s)
        sent = self._open.pop(message.request_id, None)
        if sent is None:
            self.stale_replies += 1
            return []
        which, why = (message.request_id,), f"{message.reason}: {message.text}"
        if message.reason is wire.RejectReason.BUSY:  # the time that it would have waited, so no claim about the past
            return [Busy(which, why, message.queue_ms / 1e3)]
        if error := sent.implausible_time(message.queue_ms, now_s):
            return self._wrong_reply(message.request_id, error)
        match message.reason:
            case wire.RejectReason.EXPIRED:
                return [Expired(which, why, message.queue_ms / 1e3)]
            case wire.RejectReason.REFERENCE:
                return [UnknownReference(which, why)]
            case _:
                return [Unanswered(which, why)]

    def _pong(self, message: wire.Pong, _: Buffer, now_s: float) -> Actions:
        sent = self._pings.pop(message.ping_id, None)
        if sent is None:
            self.stale_replies += 1
            return []
        for older in [ping for ping in self._pings if wire.was_issued(ping, message.ping_id)]:
            del self._pings[older]  # order is kept on one connection, so these were lost
        return [Echoed(sent[1], now_s - sent[0])]

    def _bye(self, _message: wire.Bye, _: Buffer, now_s: float) -> Actions:
        return self._ended("the MEC left", now_s)

    def _ignore(self, _message: wire.AnyMessage, _: Buffer, _now_s: float) -> Actions:
        return []

    # Changes of state ---------------------------------------------------------------------------------------

    def _up(self, why: str, now_s: float) -> Actions:
        self.state = LinkState.UP
        self._next_tick_s = self._up_s = now_s
        self._sent_s = self._pinged_s = -math.inf
        self._heard_since_up = False
        return [LinkChanged(self.state, why)]

    def _down(self, why: str, now_s: float, pause_s: float = 0.0) -> Actions:
        """Nothing is sent or received any more; a new connection follows after the pause."""
        self.state = LinkState.DOWN
        self._next_tick_s = self._retry_s = now_s + pause_s
        self._deaf = True
        self._pings.clear()
        return [LinkChanged(self.state, why), *self._lose_open(why)]

    def _ended(self, why: str, now_s: float) -> Actions:
        """The MEC ended a link that was up; if it does so repeatedly, the device pauses before it reconnects."""
        pause_s = self._conduct.ended(now_s - self._up_s)
        if not pause_s:
            return self._down(why, now_s)
        return [
            *self._down(f"{why} right after it came up; next try in {pause_s:g} s", now_s, pause_s),
            Disconnect(),
        ]

    def _refused(self, why: str, now_s: float) -> Actions:
        known = self.state is LinkState.REFUSED
        self.state = LinkState.REFUSED
        self._next_tick_s, self._retry_s = now_s + REFUSED_RETRY_S, math.inf
        return ([] if known else [LinkChanged(self.state, why)]) + self._lose_open(why)

    def _forgotten(self, why: str, now_s: float) -> Actions:
        if self.state is LinkState.WAITING:
            return []
        if self.state is LinkState.UP and (pause_s := self._conduct.ended(now_s - self._up_s)):
            return [*self._down(f"{why}, repeatedly; next try in {pause_s:g} s", now_s, pause_s), Disconnect()]
        self.state = LinkState.WAITING
        self._next_tick_s, self._retry_s = now_s, now_s + RETRY_S
        self._pings.clear()
        return [LinkChanged(self.state, why), *self._lose_open(why)]

    def _lose_open(self, why: str) -> Actions:
        lost = tuple(self._open)
        self._open.clear()
        return [Unanswered(lost, why)] if lost else []

    def _fault(self, text: str) -> Actions:
        self.faults += 1
        self._conduct.on_fault(self._now_s)
        return [PeerFault(RemoteProtocolError(text))]

    def _cut_off(self, now_s: float) -> Actions:
        """Disconnect if the MEC misbehaves."""
        offence = self._conduct.offence
        if not offence or self.state is LinkState.CLOSED:
            return []
        pause_s = self._conduct.cut_off()
        return [*self._down(f"disconnected for {pause_s:g} s: {offence}", now_s, pause_s), Disconnect()]

    def _wrong_reply(self, request_id: int, error: str) -> Actions:
        """Count a wrong reply as a fault; its request stays unanswered."""
        self._conduct.on_wrong_reply()
        return [*self._fault(error), Unanswered((request_id,), error)]

    def _sent(self, now_s: float) -> None:
        self._conduct.on_sent()
        self._sent_s = now_s
        if self._unheard_since_s is None:
            self._unheard_since_s = now_s

    def check(self) -> None:
        """Assert the invariants that hold between two events (tests call this)."""
        assert not self._open or self.state is LinkState.UP
        assert all(wire.was_issued(request_id, self._last_id) for request_id in self._open)


def _plausible(outputs: Buffer) -> bool:
    """Whether these float32 can be the outputs of an exit. NaN compares as false."""
    values = np.frombuffer(outputs, np.float32)
    return bool((np.abs(values) <= _LARGEST_OUTPUT).all())


_S = DeviceSession
_TABLE: dict[tuple[LinkState, type], Callable[..., Actions]] = {
    (LinkState.WAITING, wire.Welcome): _S._welcome,
    (LinkState.WAITING, wire.Reject): _S._reject,
    (LinkState.WAITING, wire.InferReply): _S._reply,
    (LinkState.WAITING, wire.Pong): _S._pong,
    (LinkState.WAITING, wire.Bye): _S._ignore,
    (LinkState.UP, wire.Welcome): _S._welcome,
    (LinkState.UP, wire.InferReply): _S._reply,
    (LinkState.UP, wire.Reject): _S._reject,
    (LinkState.UP, wire.Pong): _S._pong,
    (LinkState.UP, wire.Bye): _S._bye,
    (LinkState.DOWN, wire.Welcome): _S._welcome,
    (LinkState.DOWN, wire.InferReply): _S._reply,
    (LinkState.DOWN, wire.Reject): _S._reject,
    (LinkState.DOWN, wire.Pong): _S._pong,
    (LinkState.DOWN, wire.Bye): _S._ignore,
    (LinkState.REFUSED, wire.Welcome): _S._welcome,
    (LinkState.REFUSED, wire.Reject): _S._reject,
    (LinkState.REFUSED, wire.Bye): _S._ignore,
}
