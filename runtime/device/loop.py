"""The device's single-threaded loop: from the capture of a frame to exactly one Outcome.

Theory of operation. One thread does everything. While a head runs, it polls between two stages; while nothing runs, it
waits on the socket. ``_poll`` is the only place where things happen to the device: replies, heartbeats, captures, and
the timers of frames that wait for the MEC. The methods below stand in the order in which a frame meets them:

1. ``_capture`` puts the frame into the source's queue. If the queue is full, the oldest waiting frame is recorded as
   dropped. A shortcut (``runtime.shortcuts``) may answer the frame here, while it waits, or just before it is decided
   (``_needs_decision``). The frame is then recorded as reused and needs no decision.
2. ``next_frame`` takes the frame from the queue as soon as it can be decided, and returns what the controller sees.
3. ``execute`` gets the controller's row. If the MEC cannot be asked, the row becomes a local one.
4. A local row: ``_answer_locally`` runs the head and records the answer.
   With a crop, a part of the picture is run, or the whole where that would show nothing (``controller.regions``).
   With a gate, the first exit on the way that is sure enough answers in its place (``controller.gates``).
5. Any other row: ``_offload`` runs the head, sets the job's timers and hands the payload to the connection. A codec
   whose payloads refer to earlier ones encodes with a draft of the connection (``runtime.link.senders``). If an exit on
   the way answers, the frame ends as a local one does.
6. A later ``_poll`` ends an offloaded frame. ``_replied`` records the answer of the MEC. If the request was lost, or at
   the last moment nothing speaks for waiting on (``controller.waiting``), ``FallbackQueue`` computes a local answer in
   time, or gives the frame up. A payload that refers to something that the MEC does not hold is sent once more first
   (``Sending.send_again``), standing alone.

``OutcomeRecorder`` records each frame once; ``take_outcomes`` hands the outcomes over.

A decision with a frame stride of n covers n frames. The n - 1 frames after the decided one never wait: the first
shortcut, ``Stride``, answers each at its capture with the newest answer there is.

A slow device is emulated: after the real computation the loop idles, and polls, for as long as
``runtime.device.emulation`` says. docs/architecture.md shows the timeline of a frame.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence

from controller.costs import CostTable
from controller.forecast import Forecaster
from controller.records import Outcome, Status, SystemState
from controller.reuse import PastAnswer
from controller.scenario import Scenario
from controller.utility import Utility
from runtime.codecs.streams import stream_keys
from runtime.device.compute import Compute, Head
from runtime.device.emulation import Emulation, HeadRunner
from runtime.device.fallback import FallbackPlan
from runtime.device.fallback_queue import FallbackQueue
from runtime.device.outcomes import Answer, Job, OutcomeRecorder
from runtime.device.sending import Sending
from runtime.device.telemetry import DeviceTelemetry
from runtime.link.connection import Replied
from runtime.link.link import Clock
from runtime.link.link_watch import Counts
from runtime.link.mecs.port import MecPort
from runtime.regions.finder import RegionFinder
from runtime.shortcuts.base import Notes, Shortcut
from runtime.shortcuts.chain import Chain
from runtime.shortcuts.stride import Stride
from runtime.sources.frames import Feed, Frame, FrameSource

#: Longest wait for the MEC before the first frame, and then for the echo of the first probe.
CONNECT_WAIT_S = 0.4
PROBE_WAIT_S = 1.0
#: After ``stop``, captured frames get this long; those without an answer by then are given up.
STOP_WAIT_S = 0.5


class DeviceLoop:
    """One device: frames go in, a controller is asked for decisions, one outcome per frame comes out."""

    def __init__(
        self,
        compute: Compute,
        mec: MecPort[Job],
        costs: CostTable,
        scenario: Scenario,
        utility: Utility,
        *,
        queue_limit: int,
        closed_loop: bool = False,
        feed: Feed | None = None,
        shortcuts: Sequence[Shortcut] = (),
        log: Callable[[str], None] = lambda _: None,
        clock: Clock = time.perf_counter,
        epoch_s: float | None = None,
        forecaster: Forecaster | None = None,
    ) -> None:
        """``shortcuts`` are asked after ``Stride``; ``log`` takes a line when one fails. ``forecaster``: a new one, if
        reused answers move on. ``epoch_s``: Unix time at 0 of
        the clock, None in simulated time. It is read once, so that capture times stay in order when the system's clock
        is set."""
        self._mec, self._costs, self._scenario, self._clock = mec, costs, scenario, clock
        self._period_s = 1.0 / scenario.fps
        self._streams = stream_keys(costs)
        self._shortcuts = Chain((Stride(), *shortcuts), scenario.deadline_s, compute.picture, log)
        self._source = FrameSource(
            scenario.frames,
            self._period_s,
            scenario.first_sample,
            compute.samples,
            queue_limit,
            closed_loop,
            feed,
            self._reuse_at_capture,
        )
        emulation = Emulation(costs, scenario)
        self._telemetry = DeviceTelemetry(costs, emulation.slowdown_at(0.0))
        self._heads = HeadRunner(compute, costs, emulation, self._telemetry, clock, self._poll, self._idle)
        self._plan = FallbackPlan(costs, scenario, utility, queue_limit, self._telemetry)
        self._sending = Sending(compute, costs, mec, self._plan, self._heads, clock)
        self._recorder = OutcomeRecorder(
            compute,
            costs,
            utility,
            scenario.deadline_s,
            self._telemetry,
            lambda: mec.uplink_bps,
            self._answered,
            epoch_s,
            forecaster,
        )
        self._fallbacks = FallbackQueue(
            self._plan, mec, self._heads, self._recorder, self._source, clock, self._extend_stride
        )
        self.start_s: float | None = None  # when the first frame is captured; None before
        self._stop_s = math.inf  # when ``stop`` was called
        self.is_over = False  # the source has ended and every frame has its outcome
        self._regions = RegionFinder(compute.picture) if costs.space.cropped.any() else None
        self._deciding: Job | None = None  # between ``next_decision`` and ``execute``
        self._newest = -1  # number of the last frame that was decided
        self._polled: Callable[[], None] = lambda: None  # called at every poll, for a watchdog

    def watch(self, polled: Callable[[], None]) -> None:
        """From now on call this at every poll, every 0.1 s at least: it shows that the loop is not stuck."""
        self._polled = polled

    def take_outcomes(self) -> list[Outcome]:
        """Outcomes since the last call."""
        return self._recorder.take()

    @property
    def counts(self) -> Counts:
        """Changes of the link's state and protocol errors of the MEC so far."""
        return self._mec.counts

    @property
    def shortcut_notes(self) -> dict[str, Notes]:
        """Figures of the shortcuts for the summary, by their names."""
        regions: dict[str, Notes] = {} if self._regions is None else {"roi": self._regions.notes()}
        return self._shortcuts.notes() | regions

    # 1. What happens to the device: captures, replies, timers ----------------------------------------------

    def _poll(self) -> None:
        self._polled()
        for event in self._mec.poll():
            if isinstance(event, Replied):
                self._replied(event)
            elif not (event.unknown_reference and self._sending.send_again(event.job)):
                self._fallbacks.lost(event.job, self._clock())
        now_s = self._clock()
        if now_s >= self._source.next_capture_s:
            self._capture(now_s)
        self._fallbacks.run_timers(now_s)

    def _capture(self, now_s: float) -> None:
        for frame in self._source.offer(now_s):
            self._recorder.dropped(frame, now_s)

    def _reuse_at_capture(self, frame: Frame) -> bool:
        """Record a frame that a shortcut answers without its picture. Returns whether one did."""
        reuse = self._shortcuts.at_capture(frame, self._clock())
        if reuse is not None:
            self._recorder.reused(frame, reuse)
            if reuse.reason is not Status.SKIPPED:
                self._telemetry.on_shortcuts(True)
        return reuse is not None

    def _wait(self, until_s: float) -> None:
        """Sleep until that time, or until something may have happened."""
        stop_s = self._stop_s + STOP_WAIT_S
        self._mec.wait(min(until_s, self._source.next_capture_s, stop_s, self._fallbacks.next_timer_s))

    def _idle(self, until_s: float) -> bool:
        """Wait and poll once. False if the device stops for good."""
        if self._is_abandoned:
            return False
        self._wait(until_s)
        self._poll()
        return True

    # 2. From capture to decision ---------------------------------------------------------------------------

    def next_decision(self) -> SystemState | None:
        """Block until a frame can be decided, and return what the controller sees, as a batch of one.

        None when the source has ended and every frame has its outcome.
        """
        while (state := self.next_frame()) is None and not self.is_over:
            pass
        return state

    def next_frame(self) -> SystemState | None:
        """The same for one frame. None, too, when a shortcut has answered it: its outcome is there, and there is
        nothing to decide. ``is_over`` tells this from the end."""
        assert self._deciding is None, "execute() the last decision first"
        if self.start_s is None:
            self._start()
        while True:
            self._poll()
            if self._is_abandoned:
                self._give_up_all()
                self.is_over = True
                return None
            if self._source.waiting and (not self._mec.is_full or self._plan.is_useful):
                state = self._take_frame()
                if state is not None or self._deciding is None:
                    return state
                continue  # the device stops for good, and gives this frame up
            busy = bool(self._mec.in_flight)
            if not busy and self._source.exhausted:
                self.is_over = True
                return None
            if not busy:
                self._source.offer_answered(self._clock())
            if not self._source.waiting or busy:
                self._wait(math.inf)

    def _start(self) -> None:
        """Connect to the MEC if it is there, measure its uplink, then start the captures."""
        self._poll()
        limit_s = self._clock() + CONNECT_WAIT_S
        while self._mec.is_greeting and self._clock() < min(limit_s, self._stop_s):
            self._wait(limit_s)
            self._poll()
        limit_s = self._clock() + PROBE_WAIT_S
        while self._mec.is_probing and self._clock() < min(limit_s, self._stop_s):
            self._wait(limit_s)
            self._poll()
        self.start_s = self._clock()
        self._heads.start(self.start_s)
        self._mec.start(self.start_s)
        self._source.start(self.start_s)

    def _take_frame(self) -> SystemState | None:
        """Take the next frame from the queue. Returns its state; None if it needs no decision."""
        frame = self._source.waiting.popleft()
        job = self._deciding = Job(frame, self._clock() - frame.captured_s)
        if self._shortcuts.needs_pictures and not self._needs_decision(job):
            return None
        now_s, self._newest = self._clock(), frame.index
        job.wait_s = now_s - frame.captured_s
        self._telemetry.on_shortcuts(False)
        return self._telemetry.state(
            self._mec.observe(now_s),
            deadline_s=self._scenario.deadline_s,
            capture_period_s=self._period_s,
            frame_age_s=job.wait_s,
            queued_frames=len(self._source.waiting),
            motion=self._shortcuts.motion(frame.index),
            reference_age=[self._mec.reference_age(stream, frame.index) for stream in self._streams],
            whole_age=None if self._regions is None else self._regions.age(frame.index, now_s),
        )

    def _needs_decision(self, job: Job) -> bool:
        """Ask the shortcuts that need the picture. False if one answered the frame, or if the device stops for good."""
        began_s = self._clock()
        reuse = self._shortcuts.before_decision(job.frame, began_s, self._heads.slowdown_at(began_s))
        if not self._heads.lengthen(job, began_s):
            return False
        if reuse is not None:
            self._deciding = None
            self._telemetry.on_shortcuts(True)
            self._recorder.reused(job.frame, reuse, job.busy_s)
        return reuse is None

    # 3. From decision to answer ----------------------------------------------------------------------------

    def local_row(self, state: SystemState) -> int:
        """The row to execute if the controller failed to decide."""
        return self._plan.local_row(state)

    def execute(self, row: int) -> None:
        """Carry out the decision for the frame that ``next_decision`` returned; ``row`` is one of the cost table."""
        job, self._deciding = self._deciding, None
        assert job is not None, "next_decision() first"
        decided_s = self._clock()
        job.decide_s = decided_s - job.frame.captured_s - job.wait_s
        local = bool(self._costs.space.device_only[row])
        refused = not local and not self._sending.is_possible
        if (refused or not self._mec.is_up) and self._plan.is_possible:
            row = self._plan.row_instead(row, job, decided_s)
        job.row = row = self._aimed(job, row)
        self._set_stride(job, self._costs.space.decisions[row].frame_stride)
        if local:
            self._mec.probe_if_stale(decided_s)
            self._answer_locally(job, Status.OK)
        elif not refused:
            self._offload(job)
        elif self._plan.is_possible:
            self._answer_locally(job, Status.FALLBACK)
        else:
            self._recorder.given_up(job, decided_s)

    def _aimed(self, job: Job, row: int) -> int:
        """The row to run: the decided one, or the one for the whole picture where a crop would show nothing."""
        if self._regions is None:
            return row
        job.aimed_s = self._clock()
        job.aim = self._regions.aim(job.frame, self._costs.space.decisions[row].crop, job.aimed_s)
        return row if job.aim is not None else int(self._costs.whole_row[row])

    def _answered(self, answer: PastAnswer) -> None:
        """An answer was computed: later frames may refer to it, or have it in place of their own."""
        if self._regions is not None:
            self._regions.answered(answer)
        self._shortcuts.answered(answer)

    def _set_stride(self, job: Job, frames: int) -> None:
        """The answer of this job covers this many frames; those after the first are not run."""
        self._shortcuts.decided(job.frame.index, frames)
        self._source.answer_waiting()

    def _extend_stride(self, job: Job, frames: int) -> None:
        """A fallback covers this many frames, unless a later frame was decided already."""
        if job.frame.index == self._newest:
            self._set_stride(job, frames)

    def _head_began_s(self, job: Job) -> float:
        """Now; with a crop, when the look for its window began."""
        return self._clock() if job.aim is None else job.aimed_s

    def _answer_locally(self, job: Job, status: Status) -> None:
        began_s = self._head_began_s(job)
        head = self._heads.run(job, job.row)
        now_s = self._clock()
        if head is None:
            self._recorder.given_up(job, now_s)
        else:
            self._record_head(job, status, head, now_s - began_s)

    def _record_head(self, job: Job, status: Status, head: Head, head_s: float) -> None:
        """The device has answered: with the decided exit, or with one on the way that is sure enough."""
        answer = Answer(head.outputs, self._costs.path(job.row, head.early_exit))
        self._recorder.answered(job, self._clock(), status, answer, head_s=head_s)

    def _offload(self, job: Job) -> None:
        began_s = self._head_began_s(job)
        job.draft = self._mec.draft(self._costs.space.decisions[job.row], job.frame.index)
        head = self._heads.run(job, job.row, job.draft)
        now_s = self._clock()
        if head is None:
            self._recorder.given_up(job, now_s)
            return
        if head.early_exit is not None:  # nothing is sent, so that the uplink may have to be probed
            self._record_head(job, Status.OK, head, now_s - began_s)
            self._mec.probe_if_stale(now_s)
            return
        payload = head.payload if job.draft is None else job.draft.payload()
        job.head_s, job.sent_s = now_s - began_s, now_s
        self._plan.set_timers(job, now_s)
        if not self._mec.is_up:
            job.payload_bytes = len(payload)
            self._fallbacks.lost(job, now_s)
            return
        job.transmit_s = self._sending.send(job, payload, now_s)
        self._poll()

    def _replied(self, reply: Replied[Job]) -> None:
        job = reply.job
        before_s = 0.0 if math.isnan(job.resent_s) else job.resent_s - job.sent_s
        if job.transmit_s is None:
            job.transmit_s = max(reply.uplink_s - reply.downlink_s, 0.0)
        self._recorder.answered(
            job,
            self._clock(),
            Status.OK,
            Answer(reply.outputs, job.row),
            head_s=job.head_s,
            uplink_s=before_s + reply.uplink_s,
            queue_s=reply.queue_s,
            tail_s=reply.tail_s,
            downlink_s=reply.downlink_s,
            mec=reply.mec,
        )

    # 4. The end --------------------------------------------------------------------------------------------

    def stop(self) -> None:
        """Capture nothing more. Captured frames still get their outcome; those that take longer than ``STOP_WAIT_S``
        are given up. Safe in a signal handler."""
        self._stop_s = min(self._stop_s, self._clock())
        self._source.stop()

    def close(self) -> None:
        """Give up every frame without an outcome and disconnect; may be called twice."""
        self.stop()
        self._give_up_all()
        self._mec.close()

    @property
    def _is_abandoned(self) -> bool:
        """``STOP_WAIT_S`` has passed since ``stop``: the device waits for nothing more."""
        return self._clock() >= self._stop_s + STOP_WAIT_S

    def _give_up_all(self) -> None:
        now_s = self._clock()
        self._fallbacks.give_up_all(now_s)
        if self._deciding is not None:
            self._recorder.given_up(self._deciding, now_s)
            self._deciding = None
        while self._source.waiting:
            self._recorder.dropped(self._source.waiting.popleft(), now_s)
