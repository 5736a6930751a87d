"""What does a device do with each frame? The single-threaded loop from capture to exactly one Outcome.

Theory of operation (docs/architecture.md has the timeline). One thread does everything; while it computes it polls
between stages, while it is idle it waits on the socket. ``_poll`` is the only place where things happen to the device:
arrivals, heartbeats, captures, and the timers of frames that wait for the MEC. A frame is in one of four places:
waiting in the source, being decided, being computed, or in flight; it leaves through the recorder, once. A frame in
flight holds a time by which it must fall back and one by which it is given up. A fallback runs inside ``_poll``, so it
preempts the head that polled, and that head's end moves by the fallback's duration.

A decision with a frame interval of n is for n frames: the n - 1 after the decided one never wait. Each is answered when
it is captured, with the newest answer that was out by then.

A slow device is emulated: after the real computation it idles, and polls, for as long as ``runtime.device.fallback``
says.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable

import numpy as np

from controller import timeline as formulas
from controller.costs import CostTable
from controller.fallback import Alone, Situation
from controller.records import Outcome, Status, SystemState
from controller.scenario import Scenario
from controller.utility import Utility
from runtime.config.tree import DEFAULTS, LimitsSection
from runtime.device.compute import Compute, Head
from runtime.device.fallback import LastMoment, Pace
from runtime.device.outcomes import Answer, Job, OutcomeRecorder
from runtime.device.telemetry import Sent, Telemetry
from runtime.link.link import Arrival, Clock, Connected, Link, Malformed
from runtime.link.link_watch import Counts, LinkWatch
from runtime.protocol import wire
from runtime.protocol.device_session import (
    Actions,
    Answered,
    DeviceSession,
    Disconnect,
    Echoed,
    Expired,
    LinkChanged,
    LinkState,
    PeerFault,
    Reconnect,
    Transmit,
    Unanswered,
)
from runtime.sources.frames import Feed, FrameSource

#: Longest that a device waits for its MEC before the first frame, and for the echo of its probe.
CONNECT_WAIT_S = 0.4
PROBE_WAIT_S = 1.0
#: How long the frames that were captured may take after an end was asked for; what is not done then is given up.
STOP_WAIT_S = 0.5

Log = Callable[[str], None]


class DeviceLoop:
    """One device: frames in, decisions asked for, outcomes out."""

    def __init__(
        self,
        compute: Compute,
        link: Link,
        session: DeviceSession,
        costs: CostTable,
        scenario: Scenario,
        utility: Utility,
        limits: LimitsSection = DEFAULTS.limits,
        *,
        closed_loop: bool = False,
        feed: Feed | None = None,
        clock: Clock = time.perf_counter,
        epoch_s: float | None = None,
        log: Log = lambda _: None,
        mec: str = "the MEC's address",
    ) -> None:
        """``epoch_s`` is the Unix time at 0 of the clock, None where time is simulated. It is not read again: captures
        stay in order when somebody sets the system's clock."""
        self._compute, self._link, self._session = compute, link, session
        self._costs, self._scenario, self._utility = costs, scenario, utility
        self._clock = clock
        self._limits = limits
        interval_s = 1.0 / scenario.fps
        self._source = FrameSource(
            scenario.frames,
            interval_s,
            scenario.first_sample,
            compute.samples,
            self._limits.queue_limit,
            closed_loop,
            feed,
        )
        self._interval_s = interval_s
        self._pace = Pace(costs, scenario)
        self.alone = Alone(costs, utility, self._limits.queue_limit)
        self._last_moment = LastMoment(float(costs.head_s[costs.local_frontier[:1]].sum()))
        self._overdue = False  # a frame was not answered in time, and nothing has been heard since
        self._start_s: float | None = None
        self.telemetry = Telemetry(costs, self._pace.slowdown_at(0.0), clock())
        self.counts = Counts()
        self._watch = LinkWatch(mec, self.counts, link.trouble, log, clock())
        self._stop_s = math.inf  # when an end was asked for
        self._deciding: Job | None = None
        self._newest = -1  # frame that was decided
        self._in_flight: dict[int, Job] = {}  # request id -> job
        self._must_fall_back: list[Job] = []
        self._falling_back = False
        self._fallback_end_s = -math.inf
        self._preempted_s = 0.0  # time given to fallbacks so far
        self._probing = False  # does the link owe us what it carries?
        self._probe_s = -math.inf  # when that was last asked
        self._recorder = OutcomeRecorder(compute, costs, utility, scenario.deadline_s, self.telemetry, epoch_s)

    # The interface ------------------------------------------------------------------------------------------

    def next_decision(self) -> SystemState | None:
        """Block until a frame can be decided; None when the source has ended and every frame has its outcome."""
        assert self._deciding is None, "execute() the last decision first"
        if self._start_s is None:
            self._start()
        while True:
            self._poll()
            if self._abandoned:
                self._give_up_all()
                return None
            busy = len(self._in_flight)
            if self._source.waiting and (busy < self._limits.max_in_flight or self._useful_alone):
                return self._take()
            if not busy and self._source.exhausted:
                return None
            if not busy:
                self._source.offer_answered(self._clock())
                self._answer_skipped()
            if not self._source.waiting or busy:
                self._wait(math.inf)

    def execute(self, row: int) -> None:
        """Carry out the decision for the frame that ``next_decision`` announced."""
        job, self._deciding = self._deciding, None
        assert job is not None, "next_decision() first"
        decided_s = self._clock()
        job.decide_s = decided_s - job.frame.captured_s - job.wait_s
        alone = bool(self._costs.space.device_only[row])
        refused = not alone and not self._link_takes_more
        if (refused or not self._link_up) and self.alone.possible:
            row = int(self.alone.instead(self._situation(job, decided_s), np.array([row]))[0])
        job.row = row
        self._source.skip_until(job.frame.index + self._costs.space.decisions[row].frame_stride)
        self._answer_skipped()
        if alone:
            self._probe_idle(decided_s)
            self._answer_locally(job, row, Status.OK)
        elif not refused:
            self._offload(job)
        elif self.alone.possible:
            self._answer_locally(job, row, Status.FALLBACK)
        else:
            self._recorder.given_up(job, decided_s)

    def take_outcomes(self) -> list[Outcome]:
        """Outcomes since the last call."""
        return self._recorder.take()

    def stop(self) -> None:
        """Capture nothing more; frames that were captured still get their outcome, those that would take longer than
        ``STOP_WAIT_S`` are given up. Safe in a signal handler."""
        self._stop_s = min(self._stop_s, self._clock())
        self._source.stop()

    def close(self) -> None:
        """Give up what is left and leave; may be called twice."""
        self.stop()
        self._give_up_all()
        self._watch.finish(self._clock())
        self._act(self._session.close())
        self._link.close()

    @property
    def _abandoned(self) -> bool:
        """Whether an end was asked for so long ago that nothing is waited for any more."""
        return self._clock() >= self._stop_s + STOP_WAIT_S

    def _give_up_all(self) -> None:
        now_s = self._clock()
        left = [*self._in_flight.values(), *self._must_fall_back, *([self._deciding] if self._deciding else [])]
        self._in_flight, self._must_fall_back, self._deciding = {}, [], None
        for job in left:
            self._recorder.given_up(job, now_s)
        while self._source.waiting:
            self._recorder.dropped(self._source.waiting.popleft(), now_s)

    # From decision to answer --------------------------------------------------------------------------------

    def _start(self) -> None:
        """Meet the MEC if it is there, then start the clock of the frames."""
        limit_s = self._clock() + CONNECT_WAIT_S
        self._poll()
        while self._session.state is LinkState.WAITING and self._clock() < min(limit_s, self._stop_s):
            self._wait(limit_s)
            self._poll()
        limit_s = self._clock() + PROBE_WAIT_S
        while self._probing and self._clock() < min(limit_s, self._stop_s):
            self._wait(limit_s)
            self._poll()
        self._start_s = self._clock()
        self._link.start(self._start_s)
        self._watch.start(self._start_s)
        self._source.start(self._start_s)

    def _take(self) -> SystemState:
        now_s = self._clock()
        frame = self._source.waiting.popleft()
        self._newest = frame.index
        self._deciding = Job(frame, now_s - frame.captured_s)
        return self.telemetry.state(
            now_s,
            deadline_s=self._scenario.deadline_s,
            capture_period_s=self._interval_s,
            frame_age_s=now_s - frame.captured_s,
            queued_frames=len(self._source.waiting),
            in_flight=len(self._in_flight),
            link_up=self._link_up,
        )

    @property
    def _link_up(self) -> bool:
        """The link is up and has told what it carries. What was known before it went silent is no ground to load it
        again, and a payload ahead of the probe would be in its sample."""
        return self._session.state is LinkState.UP and not self._probing

    @property
    def _link_takes_more(self) -> bool:
        """Whether an offload can be carried out now, and is likely to be answered."""
        full = len(self._in_flight) >= self._limits.max_in_flight
        full = full or self.telemetry.unanswered >= formulas.MAX_UNANSWERED
        return self._link_up and not full and not (self._overdue and self._useful_alone)

    @property
    def _useful_alone(self) -> bool:
        """Whether a frame that is not offloaded can be in time. Where none can, a frame loses nothing by being
        offloaded in vain, or by waiting for a place in flight."""
        known = (np.array(self._scenario.deadline_s), np.array(self.telemetry.device_slowdown))
        return self.alone.possible and not self.alone.hopeless(*known)

    def _situation(self, job: Job, now_s: float) -> Situation:
        """One row, for what the device answers alone."""
        known = (now_s - job.frame.captured_s, self._scenario.deadline_s, self._interval_s)
        return Situation(*(np.array([value]) for value in (*known, self.telemetry.device_slowdown)))

    def _answer_locally(self, job: Job, row: int, status: Status) -> None:
        began_s = self._clock()
        head = self._run(job, row)
        now_s = self._clock()
        if head is None:
            self._recorder.given_up(job, now_s)
            return
        self._recorder.answered(job, now_s, status, Answer(head.outputs, row), head_s=now_s - began_s)

    def _offload(self, job: Job) -> None:
        began_s = self._clock()
        head = self._run(job, job.row)
        now_s = self._clock()
        if head is None:
            self._recorder.given_up(job, now_s)
            return
        job.head_s, job.sent_s, job.payload_bytes = now_s - began_s, now_s, len(head.payload)
        self._set_timers(job, now_s)
        if not self._link_up:
            self._unanswered(job, now_s)
            return
        request_id = self._session.next_id()
        request = self._request(request_id, job, now_s)
        self._in_flight[request_id] = job
        output_shape = self._compute.output_shape(self._costs.space.decisions[job.row])
        self._session.request(request, output_shape, now_s)
        self.telemetry.on_sent(request_id, Sent(now_s, job.payload_bytes, job.row))
        job.transmit_s = self._link.send(request, head.payload)
        self._poll()

    def _request(self, request_id: int, job: Job, now_s: float) -> wire.InferRequest:
        row = self._compute.row(self._costs.space.decisions[job.row])
        return wire.InferRequest(request_id, row, wire.whole_ms(job.give_up_s - now_s))

    def _set_timers(self, job: Job, now_s: float) -> None:
        """When to fall back, or not at all when that moment has passed already; and when to give up."""
        job.give_up_s = job.frame.captured_s + formulas.GIVE_UP_DEADLINES * self._scenario.deadline_s
        fall_back_s = self._latest_start_s(job)
        if now_s <= fall_back_s and self.alone.possible:
            job.fall_back_s = fall_back_s
        else:
            job.expected_s = max(job.frame.captured_s + self._scenario.deadline_s, now_s)

    def _latest_start_s(self, job: Job) -> float:
        """When a fallback must begin, as far as is known now."""
        reserve_s = self._last_moment.reserve_s(self.telemetry.device_slowdown)
        return job.frame.captured_s + self._scenario.deadline_s - reserve_s

    def _hopeless(self, job: Job, now_s: float) -> bool:
        left_s = job.frame.captured_s + self._scenario.deadline_s - now_s
        return bool(self.alone.hopeless(np.array(left_s), np.array(self.telemetry.device_slowdown)))

    def _fallback_row(self, job: Job, now_s: float) -> int:
        """At the last moment the fastest row; before, the best that fits the frame's share of the device's time, which
        others that wait have a part of. Frames that pass meanwhile are skipped if it takes longer than the share."""
        situation, interval = self._situation(job, now_s), self._costs.space.frame_stride[[job.row]]
        share_s = interval * self._interval_s - job.busy_s
        row = np.array([self.alone.fastest])
        if now_s < self._latest_start_s(job):
            waiting = len(self._must_fall_back) + len(self._source.waiting)
            row = self.alone.fallback(situation, interval, share_s / (1 + waiting))
        if job.frame.index == self._newest:
            frames = int(self.alone.stretched(situation, interval, row, share_s)[0])
            self._source.skip_until(job.frame.index + frames)
            self._answer_skipped()
        return int(row[0])

    # Computing ----------------------------------------------------------------------------------------------

    def _run(self, job: Job, row: int) -> Head | None:
        """A head, for as long as the emulated device needs; time given to fallbacks does not count. None when the
        device is to end and would idle on."""
        began_s, preempted_s = self._clock(), self._preempted_s
        head = self._compute.head(job.frame.source_index, self._costs.space.decisions[row], self._poll)
        end_s = began_s + self._pace.head_s(row, began_s - (self._start_s or began_s))
        while self._clock() < end_s + self._preempted_s - preempted_s:
            if self._abandoned:
                return None
            self._wait(end_s + self._preempted_s - preempted_s)
            self._poll()
        took_s = self._clock() - began_s - (self._preempted_s - preempted_s)
        job.busy_s += took_s
        self.telemetry.on_head(row, took_s)
        return head

    # What happens to the device -----------------------------------------------------------------------------

    def _wait(self, until_s: float) -> None:
        """Idle until something may have happened."""
        timers = [min(job.fall_back_s, job.expected_s, job.give_up_s) for job in self._in_flight.values()]
        if self._falling_back:
            timers = []  # they are looked at when this fallback ends
        abandon_s = self._stop_s + STOP_WAIT_S
        self._link.wait(min(until_s, self._session.next_tick_s, self._source.next_capture_s, abandon_s, *timers))

    def _poll(self) -> None:
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
            self._act(self._session.tick(now_s))
        self._watch.tell(now_s)
        if now_s >= self._source.next_capture_s:
            for frame in self._source.offer(now_s):
                self._recorder.dropped(frame, now_s)
            self._answer_skipped()
        if self._in_flight or self._must_fall_back:
            self._run_timers(now_s)

    def _answer_skipped(self) -> None:
        for frame in self._source.take_skipped():
            self._recorder.skipped(frame)

    def _act(self, actions: Actions, at_s: float | None = None) -> None:
        for action in actions:
            match action:
                case Transmit():
                    self._link.send(action.message, action.buffer)
                case Answered():
                    self._answered(action, self._clock() if at_s is None else at_s)
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

    def _answered(self, action: Answered, at_s: float) -> None:
        reply, self._overdue = action.reply, False
        self.telemetry.on_reply(reply, at_s)
        job = self._in_flight.pop(reply.request_id, None)
        if job is None:
            return  # its frame fell back or was given up
        now_s = self._clock()
        mec_s = (reply.queue_ms + reply.mec_ms) / 1e3
        downlink_s = min(self.telemetry.rtt_s / 2, max(now_s - job.sent_s - mec_s, 0.0))
        uplink_s = max(now_s - job.sent_s - mec_s - downlink_s, 0.0)
        if job.transmit_s is None:
            job.transmit_s = max(uplink_s - downlink_s, 0.0)
        self._recorder.answered(
            job,
            now_s,
            Status.OK,
            Answer(action.outputs, job.row),
            head_s=job.head_s,
            uplink_s=uplink_s,
            queue_s=reply.queue_ms / 1e3,
            tail_s=reply.mec_ms / 1e3,
            downlink_s=downlink_s,
        )

    def _lost(self, action: Unanswered, at_s: float) -> None:
        if isinstance(action, Expired):
            (request_id,), self._overdue = action.request_ids, False
            self.telemetry.on_expired(request_id, action.queue_s, at_s)
        self.telemetry.on_unanswered(action.request_ids)
        for request_id in action.request_ids:
            if (job := self._in_flight.pop(request_id, None)) is not None:
                self._unanswered(job, self._clock())

    def _unanswered(self, job: Job, now_s: float) -> None:
        """The MEC will not answer: fall back at once, if anything can still be in time."""
        if self.alone.possible and not self._hopeless(job, now_s):
            self._must_fall_back.append(job)
        else:
            self._recorder.given_up(job, now_s)

    def _echoed(self, action: Echoed) -> None:
        """The bare echo of a link that came up calls for the probe: a sample needs the round trip, and by then whatever
        was lost on the way has crossed. A later bare echo says that the probe was lost, for order is kept."""
        now_s, self._overdue = self._clock(), False
        self.telemetry.on_echo(action.padding_bytes, action.elapsed_s, now_s)
        if action.padding_bytes:
            self._probing = False
        elif self._probing and now_s - action.elapsed_s > self._probe_s:
            self._probe(formulas.PROBE_BYTES, now_s)

    def _probe_idle(self, now_s: float) -> None:
        """Ask an uplink that carried nothing for long what it carries now. Else a device that computes locally because
        of one bad sample never learns that it could offload again."""
        asked_s = max(self.telemetry.sample_s, self._probe_s)
        if self._link_up and not self.telemetry.unanswered and now_s - asked_s >= formulas.SAMPLE_AGE_S:
            self._probe(int(formulas.probe_bytes(self.telemetry.last_uplink_bps)), now_s)

    def _probe(self, size: int, now_s: float) -> None:
        self._probe_s = now_s
        self._act(self._session.probe(size, now_s))

    def _link_changed(self, action: LinkChanged) -> None:
        self._watch.on_change(action.state, action.why, self._clock())
        self._probing, self._probe_s, self._overdue = action.state is LinkState.UP, -math.inf, False
        if self._probing:
            self.telemetry.on_welcome(self._session.mec_slowdown)

    def _run_timers(self, now_s: float) -> None:
        for request_id, job in list(self._in_flight.items()):
            if job.fall_back_s < math.inf:
                job.fall_back_s = self._latest_start_s(job)
            if job.fall_back_s <= now_s:
                del self._in_flight[request_id]
                self._must_fall_back.append(job)
                self._overdue = True
            elif job.expected_s <= now_s:
                job.expected_s = math.inf
                self._overdue = True
            if job.give_up_s <= now_s:
                del self._in_flight[request_id]
                self._recorder.given_up(job, now_s)
        while self._must_fall_back and not self._falling_back:
            self._fall_back(self._must_fall_back.pop(0))

    def _fall_back(self, job: Job) -> None:
        began_s, slowdown = self._clock(), self.telemetry.device_slowdown
        due_s = max(job.fall_back_s, self._fallback_end_s) if job.fall_back_s <= began_s else math.inf
        if self._hopeless(job, began_s):
            self._last_moment.missed(began_s - due_s, slowdown, self._scenario.deadline_s)
            self._recorder.given_up(job, began_s)
            return
        self._falling_back = True
        row = self._fallback_row(job, began_s)
        head = self._run(job, row)
        now_s = self._clock()
        self._falling_back = False
        self._preempted_s += now_s - began_s
        if head is None:
            self._recorder.given_up(job, now_s)
            return
        self._last_moment.learn(now_s - due_s, slowdown, self._scenario.deadline_s)
        self._fallback_end_s = now_s
        self._recorder.answered(
            job,
            now_s,
            Status.FALLBACK,
            Answer(head.outputs, row),
            head_s=job.head_s + now_s - began_s,
            uplink_s=began_s - job.sent_s,
        )
