"""A device's connection to one MEC: session, link, telemetry and requests in flight as one object.

Theory of operation. The device passes a job with its payload to ``offload`` and polls. ``poll`` handles received
messages and the session's timer, carries out the session's actions, and returns the results of jobs. Each job ends
exactly once: as ``Replied``, as ``Lost``, or through ``release`` if the device stops waiting for it. A job is opaque
here. A reply to a released job still updates the telemetry.

Where a codec's payloads refer to earlier ones, the device asks for a ``draft`` before it encodes. ``Senders`` hear here
what became of each request: replies, losses and changes of the link.

The uplink is probed with a padded ping when the link comes up, and again when nothing was sent for a while. The first
probe is small; on a link that turns out fast a larger one follows, and only its sample counts. A link that has come up
counts as down (``is_up``) until its last first probe has returned: bandwidth measured before an outage says
nothing about the uplink after it, and a payload sent before the probe would distort the probe's sample.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Generic, TypeVar

from controller import timeline as formulas
from controller.costs import CostTable
from controller.records import Decision, PayloadKey
from runtime.link.link import Arrival, Clock, Connected, Link, Malformed, Wake
from runtime.link.link_watch import ANSWERING_LOCALLY, Counts, LinkWatch
from runtime.link.mec_telemetry import MecObservation, MecTelemetry, Sent
from runtime.link.senders import Draft, Senders
from runtime.protocol import wire
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
from runtime.protocol.device_session import DeviceSession
from runtime.protocol.wire import Buffer

JobT = TypeVar("JobT")

#: Time between pings to a MEC that stands by. It is a multiple of no usual capture period: otherwise every ping would
#: meet the payload of a frame to the MEC in use at the same point of its way.
STANDBY_HEARTBEAT_S = 1.87


@dataclass(frozen=True, slots=True)
class Offload:
    """A request to the MEC: run the tail of a row on a payload."""

    row: int  # in the device's cost table
    space_row: int  # the same decision's number in the space that both sides agreed on
    output_shape: tuple[int, ...]  # of the expected outputs, float32
    payload: Buffer
    budget_s: float  # until the device stops waiting
    draft: Draft | None = None  # the payload's, if it may refer to an earlier one


@dataclass(frozen=True, slots=True)
class Replied(Generic[JobT]):
    """A job's outputs arrived; the durations add up to the time since ``offload``."""

    job: JobT
    outputs: Buffer
    uplink_s: float
    queue_s: float
    tail_s: float
    downlink_s: float
    mec: str = ""  # who answered, where the device has several MECs or a breaker


@dataclass(frozen=True, slots=True)
class Lost(Generic[JobT]):
    """A job will not be answered: rejected, or the link went down."""

    job: JobT
    unknown_reference: bool = False  # rejected, because the MEC does not hold what the payload refers to


@dataclass(frozen=True, slots=True)
class _InFlight(Generic[JobT]):
    job: JobT
    sent_s: float


class MecConnection(Generic[JobT]):
    """Owns the session, the link, the telemetry and the jobs in flight. Single-threaded; only ``wait`` blocks."""

    def __init__(
        self,
        endpoint: str,  # as the log names it
        link: Link,
        session: DeviceSession,
        costs: CostTable,
        *,
        max_in_flight: int,
        clock: Clock,
        log: Callable[[str], None] = lambda _: None,
        senders: Senders | None = None,  # default: no codec has references
        otherwise: str = ANSWERING_LOCALLY,  # what the device does while the link is not up; "" is not logged
    ) -> None:
        self._link, self._session, self._clock = link, session, clock
        self._max_in_flight = max_in_flight
        self._costs, self._telemetry = costs, MecTelemetry(costs, clock())
        self._senders = Senders() if senders is None else senders
        self._in_flight: dict[int, _InFlight[JobT]] = {}  # by request id
        self._events: list[Replied[JobT] | Lost[JobT]] = []  # since the last poll
        self._probing = False  # the link came up and its first probe has not returned
        self._probe_s = -math.inf  # when the last probe was sent
        self._overdue = False
        self.counts = Counts()
        self._watch = LinkWatch(endpoint, self.counts, link.trouble, log, clock(), otherwise)
        #: Another MEC is in use: this one is only to be greeted, with as few bytes as possible.
        self.stands_by = False

    # State --------------------------------------------------------------------------------------------------

    @property
    def is_greeting(self) -> bool:
        """No MEC has welcomed or refused this device yet."""
        return self._session.state is LinkState.WAITING

    @property
    def is_probing(self) -> bool:
        """The link came up, but its uplink was not measured yet."""
        return self._probing

    @property
    def is_up(self) -> bool:
        """The link is up and its uplink was measured."""
        return self._session.state is LinkState.UP and not self._probing

    @property
    def is_full(self) -> bool:
        """``max_in_flight`` jobs are in flight."""
        return len(self._in_flight) >= self._max_in_flight

    @property
    def takes_more(self) -> bool:
        """An offload can be sent now."""
        return self.is_up and not self.is_full and self._telemetry.unanswered < formulas.MAX_UNANSWERED

    @property
    def is_overdue(self) -> bool:
        """A job was not answered in time (``note_overdue``), and nothing was heard since."""
        return self._overdue

    @property
    def in_flight(self) -> tuple[JobT, ...]:
        """Jobs that wait for their reply, oldest first."""
        return tuple(flight.job for flight in self._in_flight.values())

    @property
    def uplink_bps(self) -> float:
        """The last sample of the uplink's bandwidth."""
        return self._telemetry.last_uplink_bps

    def observe(self, now_s: float) -> MecObservation:
        """What a controller sees of this MEC now."""
        unacknowledged = self._unacknowledged_bytes()
        in_flight = len(self._in_flight)
        return self._telemetry.observe(
            now_s, link_up=self.is_up, in_flight=in_flight, unacknowledged_bytes=unacknowledged
        )

    def _unacknowledged_bytes(self) -> int | None:
        """Bytes that TCP still holds; None if the kernel does not tell, and not asked where nothing is on its way."""
        state = self._link.tcp_state() if self._telemetry.unanswered else None
        return None if state is None else state.queued_bytes

    def expected_s(self, now_s: float) -> float:
        """What a request has to expect beside its way up: the round trip, the wait and the time of a typical tail."""
        return self._telemetry.expected_s(now_s)

    def reply_chance(self, job: JobT, now_s: float, answer_by_s: float) -> float:
        """Chance that the reply to a job in flight comes by ``answer_by_s``; 0 if another one is overdue and nothing
        was heard since."""
        if self._overdue:
            return 0.0
        request_ids = (request_id for request_id, flight in self._in_flight.items() if flight.job is job)
        return self._telemetry.reply_chance(next(request_ids), now_s, answer_by_s)

    # Calls of the device ------------------------------------------------------------------------------------

    def start(self, now_s: float) -> None:
        """The first frame is captured at ``now_s``; shares of time in ``counts`` begin here."""
        self._link.start(now_s)
        self._watch.start(now_s)

    def draft(self, decision: Decision, frame: int) -> Draft | None:
        """What encodes frame number ``frame`` for this decision; None if its payloads have no references."""
        return self._senders.draft(decision, frame)

    def reference_age(self, stream: PayloadKey, frame: int) -> int:
        """Frames from the reference that a stream has now to frame number ``frame``; 0 if it has none."""
        return self._senders.reference_age(stream, frame)

    def offload(self, job: JobT, offload: Offload, now_s: float) -> float | None:
        """Send a job's request; only while ``is_up``. Returns the seconds that its payload occupies the uplink, or
        None if the link cannot know."""
        request_id = self._session.next_id()
        request = wire.infer_request(request_id, offload.space_row, offload.budget_s)
        if offload.draft is not None:
            request = self._with_reference(request, offload.draft)
        self._in_flight[request_id] = _InFlight(job, now_s)
        self._session.request(request, offload.output_shape, now_s)
        self._telemetry.on_sent(request_id, Sent(now_s, self._costs.request_bytes(len(offload.payload)), offload.row))
        return self._link.send(request, offload.payload)

    def _with_reference(self, request: wire.InferRequest, draft: Draft) -> wire.InferRequest:
        self._senders.sent(request.request_id, draft)
        return wire.with_reference(request, draft.encoded.reference_id, draft.encoded.digest)

    def release(self, job: JobT) -> None:
        """The device stops waiting for this job."""
        self._in_flight = {key: flight for key, flight in self._in_flight.items() if flight.job is not job}

    def note_overdue(self, job: JobT) -> None:
        """A job was not answered in time."""
        self._overdue |= any(flight.job is job for flight in self._in_flight.values())

    def probe_if_stale(self, now_s: float) -> None:
        """Probe the uplink if its newest sample is old. Otherwise a device that computes locally because of one bad
        sample would never learn that it can offload again."""
        asked_s = max(self._telemetry.sample_s, self._probe_s)
        if self.is_up and not self._telemetry.unanswered and now_s - asked_s >= formulas.SAMPLE_AGE_S:
            self._probe(formulas.probe_bytes(self.uplink_bps), now_s)

    def poll(self) -> list[Replied[JobT] | Lost[JobT]]:
        """Handle received messages and timers; never blocks. Returns the results of jobs since the last call."""
        for event in self._link.receive():
            if isinstance(event, Arrival):
                self._act(self._session.receive(event.message, event.buffer, event.at_s), event.at_s)
            elif isinstance(event, Malformed):
                self._act(self._session.malformed(event.error, self._clock()))
            elif isinstance(event, Connected):
                self._session.connected(self._clock())
            else:
                self._act(self._session.unsendable(self._clock()))
        now_s = self._clock()
        if now_s >= self._session.next_tick_s:
            self._session.heartbeat_s = STANDBY_HEARTBEAT_S if self.stands_by else self._telemetry.heartbeat_s
            self._act(self._session.tick(now_s))
        self._watch.report(now_s)
        events, self._events = self._events, []
        return events

    def wait(self, until_s: float) -> None:
        """Return at that time, or earlier if ``poll`` may have something to do."""
        self._link.wait(min(until_s, self._session.next_tick_s))

    def wake(self) -> Wake:
        """What ends such a wait, for a device that waits for several connections."""
        wake = self._link.wake()
        return replace(wake, at_s=min(wake.at_s, self._session.next_tick_s))

    def close(self) -> None:
        """Send Bye and disconnect; may be called twice. The device must release jobs in flight itself."""
        self._watch.finish(self._clock())
        if (state := self._link.tcp_state()) is not None:
            self.counts.tcp = state.as_json()
        self._act(self._session.close())
        self._link.close()

    # Actions of the session ---------------------------------------------------------------------------------

    def _act(self, actions: Actions, at_s: float | None = None) -> None:
        """Carry out actions; ``at_s`` is when the message that led to them arrived."""
        for action in actions:
            match action:
                case Transmit():
                    self._link.send(action.message, action.buffer)
                case Answered():
                    self._replied(action, self._clock() if at_s is None else at_s)
                case Unanswered():
                    self._lost(action, self._clock() if at_s is None else at_s)
                case Echoed():
                    self._echoed(action)
                case LinkChanged():
                    self._link_changed(action)
                case PeerFault():
                    self._watch.on_fault(str(action.error))
                case Reconnect():
                    self.counts.reconnects += 1
                    self._link.connect()
                case Disconnect():
                    self._link.disconnect()

    def _replied(self, action: Answered, at_s: float) -> None:
        reply, self._overdue = action.reply, False
        self._telemetry.on_reply(reply, at_s)
        self._senders.answered(reply.request_id)
        flight = self._in_flight.pop(reply.request_id, None)
        if flight is None:
            return  # the job was released
        elapsed_s, mec_s = self._clock() - flight.sent_s, (reply.queue_ms + reply.mec_ms) / 1e3
        downlink_s = min(self._telemetry.rtt_s / 2, max(elapsed_s - mec_s, 0.0))
        uplink_s = max(elapsed_s - mec_s - downlink_s, 0.0)
        durations_s = (uplink_s, reply.queue_ms / 1e3, reply.mec_ms / 1e3, downlink_s)
        self._events.append(Replied(flight.job, action.outputs, *durations_s))

    def _lost(self, action: Unanswered, at_s: float) -> None:
        if isinstance(action, Expired):
            (request_id,), self._overdue = action.request_ids, False
            self._telemetry.on_expired(request_id, action.queue_s, at_s)
        if isinstance(action, Busy):
            (request_id,), self._overdue = action.request_ids, False
            self._telemetry.on_busy(request_id, action.queue_s, at_s)
        self._telemetry.on_unanswered(action.request_ids)
        unknown = isinstance(action, UnknownReference)
        (self._senders.unknown_reference if unknown else self._senders.unanswered)(action.request_ids)
        for request_id in action.request_ids:
            if (flight := self._in_flight.pop(request_id, None)) is not None:
                self._events.append(Lost(flight.job, unknown))

    def _echoed(self, action: Echoed) -> None:
        """A ping was answered. The first bare echo after the link came up starts the probe: a sample needs the round
        trip, and by then everything sent before has arrived or is lost. A later bare echo while probing means that the
        probe was lost, because messages keep their order."""
        now_s, self._overdue = self._clock(), False
        if self._probing and (larger := self._larger_probe(action)):
            self._probe(larger, now_s)
            return
        self._telemetry.on_echo(action.padding_bytes, action.elapsed_s, now_s)
        if action.padding_bytes:
            self._probing = False
        elif self._probing and now_s - action.elapsed_s > self._probe_s:
            self._probe(formulas.PROBE_BYTES, now_s)

    def _larger_probe(self, echoed: Echoed) -> int:
        """Padding of the probe that is needed after this echo; 0 if none is."""
        if not echoed.padding_bytes:
            return 0
        bps = self._telemetry.probed_bps(echoed.padding_bytes, echoed.elapsed_s)
        return formulas.next_probe_bytes(echoed.padding_bytes, bps)

    def _probe(self, padding_bytes: int, now_s: float) -> None:
        self._probe_s = now_s
        self._act(self._session.probe(padding_bytes, now_s))

    def _link_changed(self, action: LinkChanged) -> None:
        self._watch.on_change(action.state, action.why, self._clock())
        self._senders.forget()
        self._probing, self._probe_s, self._overdue = action.state is LinkState.UP, -math.inf, False
        if self._probing:
            self._telemetry.on_welcome(self._session.mec_slowdown)
