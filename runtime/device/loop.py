"""The device's single-threaded loop: from the capture of a frame to exactly one Outcome.

Theory of operation. One thread does everything. While a head runs it polls between two stages; while nothing runs it
waits on the socket. ``_poll`` is the only place where things happen to the device: replies, heartbeats, captures, and
the timers of frames that wait for the MEC.

A frame is in one of four places: it waits in the source, is being decided, is being computed, or is in flight at the
MEC. These calls take it from capture to Outcome:

1. ``_poll`` captures it (``FrameSource.offer``); where the queue is full, the oldest waiting frame is recorded as
   dropped.
2. A shortcut (``runtime.shortcuts``) may find that an earlier answer stands for it, when it is captured, while it waits
   or just before it is decided. That ends the frame: it is recorded as reused.
3. ``next_decision`` takes it from the queue when it can be decided and returns the state that the controller sees.
4. ``execute`` gets the controller's row. If the MEC cannot be asked, the row becomes a local one.
5. A local row: ``_answer_locally`` runs the head (``_run``) and records the answer. This ends the frame.
6. Any other row: ``_offload`` runs the head, sets the job's timers (``FallbackPlan.set_timers``) and hands the payload
   to the connection (``MecConnection.offload``).
7. A later ``_poll`` ends the frame. Its reply came: ``_replied`` records the answer. It was lost: ``_lost`` queues a
   fallback. Its reply is overdue: ``_run_timers`` queues a fallback, or gives the frame up. ``_fall_back`` computes a
   local answer and records it.

A fallback runs inside ``_poll``, so it preempts the head that polled, and that head's end moves by the fallback's
duration. ``OutcomeRecorder`` records each frame once; ``take_outcomes`` hands the outcomes over.

A decision with a frame stride of n is for n frames. The n - 1 frames after the decided one never wait: the first
shortcut, ``Stride``, answers each when it is captured, with the newest answer there is at that time.

A slow device is emulated: after the real computation the loop idles, and polls, for as long as
``runtime.device.emulation`` says. docs/architecture.md shows the timeline of a frame.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence

from controller.costs import CostTable
from controller.records import Outcome, Status, SystemState
from controller.scenario import Scenario
from controller.utility import Utility
from runtime.device.compute import Compute, Head
from runtime.device.emulation import Emulation
from runtime.device.fallback import FallbackPlan
from runtime.device.outcomes import Answer, Job, OutcomeRecorder
from runtime.device.telemetry import DeviceTelemetry
from runtime.link.connection import Lost, MecConnection, Offload, Replied
from runtime.link.link import Clock
from runtime.link.link_watch import Counts
from runtime.shortcuts.base import Shortcut
from runtime.shortcuts.chain import Chain
from runtime.shortcuts.stride import Stride
from runtime.sources.frames import Feed, Frame, FrameSource

#: Longest that a device waits for its MEC before the first frame, and then for the echo of its probe.
CONNECT_WAIT_S = 0.4
PROBE_WAIT_S = 1.0
#: After ``stop``, captured frames get this long; those that are not answered by then are given up.
STOP_WAIT_S = 0.5


class DeviceLoop:
    """One device: frames in, decisions asked for, outcomes out."""

    def __init__(
        self,
        compute: Compute,
        mec: MecConnection[Job],
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
    ) -> None:
        """``shortcuts`` are asked after the one that carries out frame strides; ``log`` takes a line when one fails.
        ``epoch_s`` is the Unix time at 0 of the clock, or None in simulated time. It is read once, so that captures
        stay in order when the system's clock is set."""
        self._compute, self._mec, self._costs, self._scenario, self._clock = compute, mec, costs, scenario, clock
        self._period_s = 1.0 / scenario.fps
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
        self._emulation = Emulation(costs, scenario)
        self._telemetry = DeviceTelemetry(costs, self._emulation.slowdown_at(0.0))
        self._plan = FallbackPlan(costs, scenario, utility, queue_limit, self._telemetry)
        self._recorder = OutcomeRecorder(
            compute,
            costs,
            utility,
            scenario.deadline_s,
            self._telemetry,
            lambda: mec.uplink_bps,
            self._shortcuts.answered,
            epoch_s,
        )
        self.start_s: float | None = None  # when the first frame is captured; None before
        self._stop_s = math.inf  # when ``stop`` was called
        self._deciding: Job | None = None
        self._newest = -1  # number of the last frame that was decided
        self._must_fall_back: list[Job] = []
        self._falling_back = False
        self._preempted_s = 0.0  # time given to fallbacks so far

    # The interface ------------------------------------------------------------------------------------------

    def next_decision(self) -> SystemState | None:
        """Block until a frame can be decided; None when the source has ended and every frame has its outcome."""
        assert self._deciding is None, "execute() the last decision first"
        if self.start_s is None:
            self._start()
        while True:
            self._poll()
            if self._abandoned:
                self._give_up_all()
                return None
            busy = bool(self._mec.in_flight)
            if self._source.waiting and (not self._mec.is_full or self._plan.is_useful):
                if (state := self._take()) is not None:
                    return state
                continue
            if not busy and self._source.exhausted:
                return None
            if not busy:
                self._source.offer_answered(self._clock())
            if not self._source.waiting or busy:
                self._wait(math.inf)

    def execute(self, row: int) -> None:
        """Carry out the decision for the frame that ``next_decision`` announced."""
        job, self._deciding = self._deciding, None
        assert job is not None, "next_decision() first"
        decided_s = self._clock()
        job.decide_s = decided_s - job.frame.captured_s - job.wait_s
        local = bool(self._costs.space.device_only[row])
        refused = not local and not self._takes_offload
        if (refused or not self._mec.is_up) and self._plan.is_possible:
            row = self._plan.row_instead(row, job, decided_s)
        job.row = row
        self._decided(job, self._costs.space.decisions[row].frame_stride)
        if local:
            self._mec.probe_if_stale(decided_s)
            self._answer_locally(job, Status.OK)
        elif not refused:
            self._offload(job)
        elif self._plan.is_possible:
            self._answer_locally(job, Status.FALLBACK)
        else:
            self._recorder.given_up(job, decided_s)

    def local_row(self, state: SystemState) -> int:
        """The row to execute where the controller gave no decision."""
        return self._plan.local_row(state)

    def take_outcomes(self) -> list[Outcome]:
        """Outcomes since the last call."""
        return self._recorder.take()

    @property
    def counts(self) -> Counts:
        """What was counted beside outcomes: the link's ups and downs, the MEC's faults."""
        return self._mec.counts

    def stop(self) -> None:
        """Capture nothing more. Captured frames still get their outcome; those that take longer than ``STOP_WAIT_S``
        are given up. Safe in a signal handler."""
        self._stop_s = min(self._stop_s, self._clock())
        self._source.stop()

    def close(self) -> None:
        """Give up what is left and leave; may be called twice."""
        self.stop()
        self._give_up_all()
        self._mec.close()

    # From the start to the end ------------------------------------------------------------------------------

    def _start(self) -> None:
        """Meet the MEC if it is there, then start the clock of the frames."""
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
        self._mec.start(self.start_s)
        self._source.start(self.start_s)

    @property
    def _abandoned(self) -> bool:
        """``stop`` was called so long ago that nothing is waited for any more."""
        return self._clock() >= self._stop_s + STOP_WAIT_S

    def _give_up_all(self) -> None:
        now_s, flying = self._clock(), self._mec.in_flight
        left = [*flying, *self._must_fall_back, *([self._deciding] if self._deciding else [])]
        self._must_fall_back, self._deciding = [], None
        for job in flying:
            self._mec.release(job)
        for job in left:
            self._recorder.given_up(job, now_s)
        while self._source.waiting:
            self._recorder.dropped(self._source.waiting.popleft(), now_s)

    # From decision to answer --------------------------------------------------------------------------------

    def _take(self) -> SystemState | None:
        """What the controller sees of the next frame; None if that frame needs no decision."""
        frame = self._source.waiting.popleft()
        job = self._deciding = Job(frame, self._clock() - frame.captured_s)
        if self._shortcuts.needs_pictures and not self._needs_decision(job):
            return None
        now_s, self._newest = self._clock(), frame.index
        job.wait_s = now_s - frame.captured_s
        return self._telemetry.state(
            self._mec.observe(now_s),
            deadline_s=self._scenario.deadline_s,
            capture_period_s=self._period_s,
            frame_age_s=now_s - frame.captured_s,
            queued_frames=len(self._source.waiting),
        )

    def _needs_decision(self, job: Job) -> bool:
        """Ask the shortcuts that need the picture. False if one answered the frame, or the device stops for good."""
        began_s, preempted_s = self._clock(), self._preempted_s
        reuse = self._shortcuts.before_decision(job.frame, began_s)
        slowdown = max(self._emulation.slowdown_at(began_s - (self.start_s or began_s)), 1.0)
        took_s = self._occupy(began_s, preempted_s, slowdown * (self._clock() - began_s))
        if took_s is None:
            return False
        job.busy_s += took_s
        if reuse is not None:
            self._deciding = None
            self._recorder.reused(job.frame, reuse, job.busy_s)
        return reuse is None

    def _decided(self, job: Job, stride: int) -> None:
        """The answer of this job is for ``stride`` frames, so those after the first are not run."""
        self._shortcuts.decided(job.frame.index, stride)
        self._source.answer_waiting()

    def _reuse_at_capture(self, frame: Frame) -> bool:
        """Record a frame that a shortcut answers without its picture; whether one did."""
        reuse = self._shortcuts.at_capture(frame, self._clock())
        if reuse is not None:
            self._recorder.reused(frame, reuse)
        return reuse is not None

    @property
    def _takes_offload(self) -> bool:
        """An offload can be carried out now and is likely to be answered, or a local answer would be late anyway."""
        return self._mec.takes_more and not (self._mec.is_overdue and self._plan.is_useful)

    def _answer_locally(self, job: Job, status: Status) -> None:
        began_s = self._clock()
        head = self._run(job, job.row)
        now_s = self._clock()
        if head is None:
            self._recorder.given_up(job, now_s)
            return
        self._recorder.answered(job, now_s, status, Answer(head.outputs, job.row), head_s=now_s - began_s)

    def _offload(self, job: Job) -> None:
        began_s = self._clock()
        head = self._run(job, job.row)
        now_s = self._clock()
        if head is None:
            self._recorder.given_up(job, now_s)
            return
        job.head_s, job.sent_s, job.payload_bytes = now_s - began_s, now_s, len(head.payload)
        self._plan.set_timers(job, now_s)
        if not self._mec.is_up:
            self._lost(job, now_s)
            return
        decision = self._costs.space.decisions[job.row]
        row, shape = self._compute.row(decision), self._compute.output_shape(decision)
        offload = Offload(job.row, row, shape, head.payload, job.give_up_s - now_s)
        job.transmit_s = self._mec.offload(job, offload, now_s)
        self._poll()

    def _run(self, job: Job, row: int) -> Head | None:
        """A head, for as long as the emulated device needs; time given to fallbacks does not count. None if the device
        stops for good while it idles."""
        began_s, preempted_s = self._clock(), self._preempted_s
        head = self._compute.head(job.frame.source_index, self._costs.space.decisions[row], self._poll)
        took_s = self._occupy(began_s, preempted_s, self._emulation.head_s(row, began_s - (self.start_s or began_s)))
        if took_s is None:
            return None
        job.busy_s += took_s
        self._telemetry.on_head(row, took_s)
        return head

    def _occupy(self, began_s: float, preempted_s: float, lasts_s: float) -> float | None:
        """Idle, and poll, until a computation has lasted as long as on the emulated device.

        ``preempted_s`` is what ``_preempted_s`` was when it began. Returns the seconds that it took, without fallbacks,
        or None if the device stops for good.
        """
        while self._clock() < (end_s := began_s + lasts_s + self._preempted_s - preempted_s):
            if self._abandoned:
                return None
            self._wait(end_s)
            self._poll()
        return self._clock() - began_s - (self._preempted_s - preempted_s)

    # What happens to the device -----------------------------------------------------------------------------

    def _wait(self, until_s: float) -> None:
        """Idle until something may have happened."""
        timers = [min(job.fall_back_s, job.expected_s, job.give_up_s) for job in self._mec.in_flight]
        if self._falling_back:
            timers = []  # they are looked at when this fallback ends
        self._mec.wait(min(until_s, self._source.next_capture_s, self._stop_s + STOP_WAIT_S, *timers))

    def _poll(self) -> None:
        for event in self._mec.poll():
            match event:
                case Replied():
                    self._replied(event)
                case Lost():
                    self._lost(event.job, self._clock())
        now_s = self._clock()
        if now_s >= self._source.next_capture_s:
            for frame in self._source.offer(now_s):
                self._recorder.dropped(frame, now_s)
        self._run_timers(now_s)

    def _replied(self, reply: Replied[Job]) -> None:
        job = reply.job
        if job.transmit_s is None:
            job.transmit_s = max(reply.uplink_s - reply.downlink_s, 0.0)
        self._recorder.answered(
            job,
            self._clock(),
            Status.OK,
            Answer(reply.outputs, job.row),
            head_s=job.head_s,
            uplink_s=reply.uplink_s,
            queue_s=reply.queue_s,
            tail_s=reply.tail_s,
            downlink_s=reply.downlink_s,
        )

    def _lost(self, job: Job, now_s: float) -> None:
        """The MEC will not answer: fall back at once, if that can still be in time."""
        if self._plan.is_possible and not self._plan.is_hopeless(job, now_s):
            self._must_fall_back.append(job)
        else:
            self._recorder.given_up(job, now_s)

    def _run_timers(self, now_s: float) -> None:
        for job in self._mec.in_flight:
            self._plan.renew_timer(job)
            overdue = min(job.fall_back_s, job.expected_s) <= now_s
            if overdue:
                self._mec.note_overdue()
                job.expected_s = math.inf
            if job.fall_back_s <= now_s:
                self._mec.release(job)
                self._must_fall_back.append(job)
            elif job.give_up_s <= now_s:
                self._mec.release(job)
                self._recorder.given_up(job, now_s)
        while self._must_fall_back and not self._falling_back:
            self._fall_back(self._must_fall_back.pop(0))

    def _fall_back(self, job: Job) -> None:
        began_s, slowdown = self._clock(), self._telemetry.slowdown
        due_s = self._plan.due_s(job, began_s)
        if self._plan.is_hopeless(job, began_s):
            self._plan.missed(due_s, began_s)
            self._recorder.given_up(job, began_s)
            return
        self._falling_back = True
        row, frames = self._plan.choose(job, began_s, len(self._must_fall_back) + len(self._source.waiting))
        if job.frame.index == self._newest:
            self._decided(job, frames)
        head = self._run(job, row)
        now_s = self._clock()
        self._falling_back = False
        self._preempted_s += now_s - began_s
        if head is None:
            self._recorder.given_up(job, now_s)
            return
        self._plan.ended(due_s, now_s, slowdown)
        answer, uplink_s = Answer(head.outputs, row), began_s - job.sent_s
        head_s = job.head_s + now_s - began_s
        self._recorder.answered(job, now_s, Status.FALLBACK, answer, head_s=head_s, uplink_s=uplink_s)
