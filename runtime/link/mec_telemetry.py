"""Estimates one MEC and the uplink to it: bandwidth, round trip, queue and slowdown.

All inputs are measured by the device, or sent by the MEC as a duration: no trace, no load of a scenario, no clock of
another machine. The formulas are in ``controller.timeline``, which the twin shares.
"""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from controller import timeline as formulas
from controller.costs import CostTable
from controller.packets import segments_bytes
from controller.predict.uplink import FLOOR_BPS
from controller.records import NO_ROW, UPLINK_HISTORY
from controller.waiting import Awaited, reply_chance
from runtime.protocol.wire import InferReply

#: The round trip is the smallest one of this many pings: ten seconds of heartbeats where nothing else is sent.
_ROUND_TRIPS = 40
#: A probe is compared with so many pings: one may have been held up.
_LAST_TRIPS = 3
#: So many show what a request has to expect: some of them wait behind payloads on their way up.
_EXPECTED_TRIPS = 8


@dataclass(frozen=True, slots=True)
class MecObservation:
    """The part of a SystemState that concerns one MEC; names and units are those of the state."""

    link_up: bool
    in_flight: int
    uplink_bps: tuple[float, ...]  # newest first, ``UPLINK_HISTORY`` values
    uplink_sample_bytes: tuple[float, ...]  # of these samples
    uplink_sample_age_s: tuple[float, ...]
    uplink_sample_count: int
    uplink_age_s: float
    uplink_backlog_bytes: float
    rtt_s: float
    mec_queue_s: float
    mec_queue_mean_s: float
    mec_slowdown: float
    mec_age_s: float
    replied_row: int
    replied_s: float
    waiting_row: int
    waiting_s: float


@dataclass(frozen=True, slots=True)
class Sent:
    """A message with a payload that was handed to the link."""

    at_s: float
    uplink_bytes: float  # on the wire
    row: int


class _Sample(NamedTuple):
    """One measurement of the uplink."""

    uplink_bps: float
    uplink_bytes: float
    at_s: float


class MecTelemetry:
    """Owns the smoothed estimates of one MEC, and the payloads that may still be on their way."""

    def __init__(self, costs: CostTable, now_s: float) -> None:
        self._costs = costs
        offloads = costs.mec_s[~costs.space.device_only]
        self._typical_tail_s = float(np.mean(offloads)) if len(offloads) else 0.0
        self._slowdown = self._announced = 1.0
        self._round_trips_s: deque[float] = deque(maxlen=_ROUND_TRIPS)  # of bare pings
        self._last_trips_s: deque[float] = deque(maxlen=_LAST_TRIPS)
        self._uplink: deque[_Sample] = deque(maxlen=UPLINK_HISTORY)  # newest first
        self._samples = 0
        self._start_s = now_s
        self._reply_s = now_s
        self._replied_row, self._replied_s = NO_ROW, 0.0  # the last request with a reply, and how long that took
        self._queue_s: deque[float] = deque([0.0] * UPLINK_HISTORY, UPLINK_HISTORY)
        self._crossing: dict[int, Sent] = {}  # request id -> payload, in the order of sending
        self._crossed_s = -math.inf  # when the last payload that is known to have arrived did so

    def on_welcome(self, mec_slowdown: float) -> None:
        """The MEC announced its slowdown."""
        self._slowdown = self._announced = mec_slowdown

    def on_sent(self, request_id: int, sent: Sent) -> None:
        self._crossing[request_id] = sent

    def on_reply(self, reply: InferReply, now_s: float) -> None:
        """Learn from a reply, also if its frame has already ended."""
        tail_s, old = reply.mec_ms / 1e3, self._slowdown_now(now_s)
        sent = self._arrived(reply.request_id, reply.queue_ms / 1e3, tail_s, now_s)
        if sent is None:
            return
        profiled_s = self._costs.mec_s[sent.row]
        if profiled_s > 0 and reply.mec_us > 0:  # 0: the outputs were known, so nothing was computed
            self._slowdown = old + formulas.SLOWDOWN_ALPHA * (tail_s / float(profiled_s) - old)

    def on_expired(self, request_id: int, queue_s: float, now_s: float) -> None:
        """Learn from a request that waited too long at the MEC; otherwise a device would keep asking an overloaded
        one."""
        self._arrived(request_id, queue_s, 0.0, now_s)

    def on_busy(self, request_id: int, queue_s: float, now_s: float) -> None:
        """Learn from a request that was not queued, because it would have waited for ``queue_s``; 0 if that is not why.
        Its answer came at once, so all of the time was that of the link."""
        if queue_s and self._arrived(request_id, 0.0, 0.0, now_s) is not None:
            self._queue_s[-1] = queue_s
            self._replied_s += queue_s  # as if it had waited

    def on_echo(self, padding_bytes: int, elapsed_s: float, now_s: float) -> None:
        """A bare ping measures the round trip, a padded one samples the uplink."""
        if not padding_bytes:
            self._round_trips_s.append(elapsed_s)
            self._last_trips_s.append(elapsed_s)
        else:
            self._add_sample(self.probed_bps(padding_bytes, elapsed_s), self._costs.ping_bytes(padding_bytes), now_s)
            self._crossed_s = max(self._crossed_s, now_s - self.rtt_s)
            self._queue_s.append(self._queue_s[-1])  # an echo does not show the queue

    def probed_bps(self, padding_bytes: int, elapsed_s: float) -> float:
        """What the echo of a probe tells of the bandwidth: by how much longer it took than the last bare pings.

        If it took no longer, the uplink has become faster, or is too fast to be measured so; then the least is taken
        that it can be.
        """
        more_s = elapsed_s - min(self._last_trips_s, default=0.0)
        if more_s <= 0:
            return formulas.uplink_sample_bps(self._costs.ping_bytes(padding_bytes), elapsed_s)
        return formulas.uplink_sample_bps(self._costs.ping_bytes(padding_bytes) - self._costs.ping_bytes(0), more_s)

    def on_unanswered(self, request_ids: tuple[int, ...]) -> None:
        """These requests were lost or rejected, so their payloads are not on their way any more."""
        for request_id in request_ids:
            self._crossing.pop(request_id, None)

    @property
    def rtt_s(self) -> float:
        """Smallest recent round trip of a bare ping, less the ping's own time on the uplink; 0 before the first.

        How fast the uplink was then is not known; the highest of the last bandwidths stands for it.
        """
        fastest_bps = max([sample.uplink_bps for sample in self._uplink], default=math.inf)
        return max(min(self._round_trips_s, default=0.0) - self._costs.ping_bytes(0) * 8.0 / fastest_bps, 0.0)

    @property
    def heartbeat_s(self) -> float:
        """Time between pings that the uplink can bear."""
        return formulas.heartbeat_s(self.last_uplink_bps) if self._samples else formulas.HEARTBEAT_S

    @property
    def last_uplink_bps(self) -> float:
        return self._newest.uplink_bps

    @property
    def sample_s(self) -> float:
        """Time of the newest uplink sample; before the first, that of the connection's beginning."""
        return self._newest.at_s

    @property
    def _newest(self) -> _Sample:
        return self._uplink[0] if self._uplink else _Sample(FLOOR_BPS, 0.0, self._start_s)

    @property
    def unanswered(self) -> int:
        """Number of payloads that may still be on their way, including those of frames that have ended."""
        return len(self._crossing)

    def observe(
        self, now_s: float, *, link_up: bool, in_flight: int, unacknowledged_bytes: int | None = None
    ) -> MecObservation:
        """What a controller sees of this MEC now. ``unacknowledged_bytes``: what TCP still holds, if that is known: a
        payload that it does not hold any more has arrived, though its reply has not."""
        reply_age_s = now_s - self._reply_s
        believed = formulas.believed_frac(reply_age_s)
        waiting = next(iter(self._crossing.values()), None)
        samples = self._history
        return MecObservation(
            link_up=link_up,
            in_flight=in_flight,
            uplink_bps=tuple([sample.uplink_bps for sample in samples]),
            uplink_sample_bytes=tuple([sample.uplink_bytes for sample in samples]),
            uplink_sample_age_s=tuple([now_s - sample.at_s for sample in samples]),
            uplink_sample_count=self._samples,
            uplink_age_s=now_s - self.sample_s,
            uplink_backlog_bytes=self._backlog_bytes(unacknowledged_bytes),
            rtt_s=self.rtt_s,
            mec_queue_s=self._queue_s[-1] * believed,
            mec_queue_mean_s=sum(self._queue_s) / UPLINK_HISTORY * believed,
            mec_slowdown=self._slowdown_now(now_s),
            mec_age_s=reply_age_s,
            replied_row=self._replied_row,
            replied_s=self._replied_s,
            waiting_row=NO_ROW if waiting is None else waiting.row,
            waiting_s=0.0 if waiting is None else max(now_s - self._began_s(waiting), 0.0),
        )

    def expected_s(self, now_s: float) -> float:
        """The fastest of the last bare pings, the last wait as far as it is still believed, and the mean tail of the
        cost table at the slowdown of this MEC. The bandwidth is left out: MECs share the device's uplink, and the
        sample of one that was not asked for long is old."""
        queue_s = self._queue_s[-1] * formulas.believed_frac(now_s - self._reply_s)
        trips_s = tuple(self._round_trips_s)[-_EXPECTED_TRIPS:]
        return min(trips_s, default=0.0) + queue_s + self._typical_tail_s * self._slowdown_now(now_s)

    def reply_chance(self, request_id: int, now_s: float, answer_by_s: float) -> float:
        """Chance that the reply to a request comes by ``answer_by_s``; 0 if the request was lost."""
        if (own := self._crossing.get(request_id)) is None:
            return 0.0
        oldest = next(iter(self._crossing.values()))
        bits = 8.0 * sum(sent.uplink_bytes for other, sent in self._crossing.items() if other <= request_id)
        served_s = self.rtt_s + float(self._costs.mec_s[own.row]) * self._slowdown_now(now_s)
        reply = Awaited(self._began_s(oldest), bits, served_s, formulas.believed_frac(now_s - self._reply_s))
        uplink_bps, queue_s = [sample.uplink_bps for sample in self._history], list(reversed(self._queue_s))
        return reply_chance(reply, uplink_bps, queue_s, 0, now_s, answer_by_s)

    def _backlog_bytes(self, unacknowledged_bytes: int | None) -> float:
        own = float(sum(sent.uplink_bytes for sent in self._crossing.values()))
        return own if unacknowledged_bytes is None else min(own, segments_bytes(unacknowledged_bytes))

    @property
    def _history(self) -> tuple[_Sample, ...]:
        """The last ``UPLINK_HISTORY`` samples, newest first; the oldest stands for missing ones."""
        known = tuple(self._uplink) or (self._newest,)
        return known + known[-1:] * (UPLINK_HISTORY - len(known))

    def _slowdown_now(self, now_s: float) -> float:
        believed = formulas.believed_frac(now_s - self._reply_s)
        return formulas.slowdown_now(self._slowdown, self._announced, believed)

    def _arrived(self, request_id: int, queue_s: float, tail_s: float, now_s: float) -> Sent | None:
        """The MEC reported on a payload. Returns that payload, or None if its arrival was already known."""
        sent = self._take_crossed(request_id)
        if sent is not None:
            self._replied_row, self._replied_s = sent.row, now_s - self._began_s(sent)
            self._sample_uplink(sent, queue_s + tail_s, now_s)
            self._queue_s.append(queue_s)
            self._reply_s = now_s
        return sent

    def _take_crossed(self, request_id: int) -> Sent | None:
        """Remove this payload and all older ones: payloads arrive in the order of sending."""
        sent = self._crossing.pop(request_id, None)
        for older in [other for other in self._crossing if other < request_id]:
            del self._crossing[older]
        return sent

    def _began_s(self, sent: Sent) -> float:
        """When a payload began to cross: payloads cross one after another."""
        return max(sent.at_s, self._crossed_s)

    def _sample_uplink(self, sent: Sent, mec_s: float, now_s: float) -> None:
        crossing_s = now_s - self._began_s(sent) - mec_s - self.rtt_s
        self._add_sample(formulas.uplink_sample_bps(sent.uplink_bytes, crossing_s), sent.uplink_bytes, now_s)
        self._crossed_s = max(self._crossed_s, now_s - mec_s - self.rtt_s)

    def _add_sample(self, uplink_bps: float, uplink_bytes: float, now_s: float) -> None:
        self._uplink.appendleft(_Sample(uplink_bps, uplink_bytes, now_s))
        self._samples += 1
