"""What does the device know about its uplink, its MEC and itself right now? The live half of ``controller.timeline``.

Everything here was measured by the device or told by the MEC in durations; nothing reads a trace, a scenario's load
or another clock.
"""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass

import numpy as np

from controller import timeline as formulas
from controller.costs import CostTable
from controller.predict.uplink import FLOOR_BPS
from controller.records import UPLINK_HISTORY, Status, SystemState
from runtime.protocol.wire import InferReply

#: Pings whose smallest round trip counts: ten seconds of heartbeats.
_ROUND_TRIPS = 40


@dataclass(frozen=True, slots=True)
class Sent:
    """A payload that was handed to the link."""

    at_s: float
    payload_bytes: int
    row: int


class Telemetry:
    """Owns every smoothed estimate of one device, and which own payloads have not been heard of."""

    def __init__(self, costs: CostTable, device_slowdown: float, now_s: float) -> None:
        self._costs = costs
        self.device_slowdown = device_slowdown
        self.mec_slowdown = self._announced = 1.0
        self._round_trips_s: deque[float] = deque(maxlen=_ROUND_TRIPS)
        self._uplink_bps: deque[float] = deque(maxlen=UPLINK_HISTORY)
        self._samples = 0
        self.sample_s = now_s  # when the newest came
        self._reply_s = now_s
        self._mec_queue_s: deque[float] = deque([0.0] * UPLINK_HISTORY, UPLINK_HISTORY)
        self._on_time_frac = 1.0
        self._fallback_frac = 0.0
        self._crossing: dict[int, Sent] = {}  # request -> payload, in the order of sending
        self._crossed_s = -math.inf  # when the last payload heard of had crossed

    def on_welcome(self, mec_slowdown: float) -> None:
        """The MEC said how slow it is."""
        self.mec_slowdown = self._announced = mec_slowdown

    def on_sent(self, request_id: int, sent: Sent) -> None:
        self._crossing[request_id] = sent

    def on_reply(self, reply: InferReply, now_s: float) -> None:
        """Learn from a reply, whatever became of its frame."""
        tail_s, old = reply.mec_ms / 1e3, self._slowdown_now(now_s)
        sent = self._heard(reply.request_id, reply.queue_ms / 1e3, tail_s, now_s)
        if sent is not None and (profiled_s := self._costs.mec_s[sent.row]) > 0:
            self.mec_slowdown = _smooth(old, tail_s / profiled_s)

    def on_expired(self, request_id: int, queue_s: float, now_s: float) -> None:
        """A request waited in vain. A device that does not learn from it goes on to ask an overloaded MEC."""
        self._heard(request_id, queue_s, 0.0, now_s)

    def on_echo(self, padding_bytes: int, elapsed_s: float, now_s: float) -> None:
        """A bare ping bounds the round trip, a padded one samples the uplink."""
        if not padding_bytes:
            self._round_trips_s.append(elapsed_s)
        else:
            self._sample_uplink(Sent(now_s - elapsed_s, padding_bytes, -1), 0.0, now_s)
            self._mec_queue_s.append(self._mec_queue_s[-1])  # of which it tells nothing

    def on_unanswered(self, request_ids: tuple[int, ...]) -> None:
        """Lost or rejected: the bytes are not under way any more."""
        for request_id in request_ids:
            self._crossing.pop(request_id, None)

    def on_head(self, row: int, took_s: float) -> None:
        self.device_slowdown = _smooth(self.device_slowdown, took_s / float(self._costs.head_s[row]))

    def on_outcome(self, status: Status) -> None:
        on_time = status.on_time
        fell_back = status is Status.FALLBACK
        self._on_time_frac += formulas.OUTCOME_ALPHA * (on_time - self._on_time_frac)
        self._fallback_frac += formulas.OUTCOME_ALPHA * (fell_back - self._fallback_frac)

    @property
    def rtt_s(self) -> float:
        """Smallest recent round trip without payload; 0 before the first."""
        return min(self._round_trips_s, default=0.0)

    @property
    def last_uplink_bps(self) -> float:
        return self._uplink_bps[0] if self._uplink_bps else FLOOR_BPS

    @property
    def unanswered(self) -> int:
        """Own payloads not yet heard of, whatever became of their frames."""
        return len(self._crossing)

    @property
    def backlog_bytes(self) -> int:
        """Own payloads not yet known to have crossed."""
        return sum(sent.payload_bytes for sent in self._crossing.values())

    def state(
        self,
        now_s: float,
        *,
        deadline_s: float,
        capture_period_s: float,
        frame_age_s: float,
        queued_frames: int,
        in_flight: int,
        link_up: bool,
    ) -> SystemState:
        """One row: everything a controller sees."""
        reply_age_s = now_s - self._reply_s
        believed = formulas.believed_frac(reply_age_s)
        known = list(self._uplink_bps) or [FLOOR_BPS]
        history = known + [known[-1]] * (UPLINK_HISTORY - len(known))
        return SystemState(
            deadline_s=np.array([deadline_s]),
            capture_period_s=np.array([capture_period_s]),
            frame_age_s=np.array([frame_age_s]),
            uplink_bps=np.array([history]),
            uplink_sample_count=np.array([self._samples]),
            uplink_age_s=np.array([now_s - self.sample_s]),
            uplink_backlog_bytes=np.array([float(self.backlog_bytes)]),
            rtt_s=np.array([self.rtt_s]),
            device_slowdown=np.array([self.device_slowdown]),
            queued_frames=np.array([queued_frames]),
            in_flight=np.array([in_flight]),
            mec_queue_s=np.array([self._mec_queue_s[-1] * believed]),
            mec_queue_mean_s=np.array([sum(self._mec_queue_s) / UPLINK_HISTORY * believed]),
            mec_slowdown=np.array([self._slowdown_now(now_s)]),
            mec_age_s=np.array([reply_age_s]),
            link_up=np.array([link_up]),
            on_time_frac=np.array([self._on_time_frac]),
            fallback_frac=np.array([self._fallback_frac]),
        )

    def _slowdown_now(self, now_s: float) -> float:
        believed = formulas.believed_frac(now_s - self._reply_s)
        return float(formulas.slowdown_now(self.mec_slowdown, self._announced, believed))

    def _heard(self, request_id: int, queue_s: float, tail_s: float, now_s: float) -> Sent | None:
        """The MEC told what became of a payload; None when that was known."""
        sent = self._cross(request_id)
        if sent is not None:
            self._sample_uplink(sent, queue_s + tail_s, now_s)
            self._mec_queue_s.append(queue_s)
            self._reply_s = now_s
        return sent

    def _cross(self, request_id: int) -> Sent | None:
        """Payloads cross in order: with this one, those before it have crossed too."""
        sent = self._crossing.pop(request_id, None)
        for older in [other for other in self._crossing if other < request_id]:
            del self._crossing[older]
        return sent

    def _sample_uplink(self, sent: Sent, mec_s: float, now_s: float) -> None:
        began_s = max(sent.at_s, self._crossed_s)
        terms = np.array([[sent.payload_bytes], [now_s - began_s], [mec_s], [self.rtt_s]], dtype=np.float64)
        sample = formulas.uplink_sample_bps(*terms)
        self._uplink_bps.appendleft(float(sample[0]))
        self._samples += 1
        self.sample_s = now_s
        self._crossed_s = max(self._crossed_s, now_s - mec_s - self.rtt_s)


def _smooth(old: float, sample: float) -> float:
    return old + formulas.SLOWDOWN_ALPHA * (sample - old)
