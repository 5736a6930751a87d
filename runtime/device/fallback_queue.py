"""Ends frames that the MEC does not answer in time: runs their timers and computes local answers in its place."""

from __future__ import annotations

import math
from collections.abc import Callable

from controller.records import Status
from runtime.device.emulation import HeadRunner
from runtime.device.fallback import FallbackPlan
from runtime.device.outcomes import Answer, Job, OutcomeRecorder
from runtime.link.link import Clock
from runtime.link.mecs.port import MecPort
from runtime.sources.frames import FrameSource


class FallbackQueue:
    """Owns the jobs that must fall back, and whether a fallback is running.

    Fallbacks run inside ``run_timers``, which every poll calls. A fallback therefore preempts the head that polled, and
    the end of that head moves by the fallback's duration. No fallback preempts another one.
    """

    def __init__(
        self,
        plan: FallbackPlan,
        mec: MecPort[Job],
        heads: HeadRunner,
        recorder: OutcomeRecorder,
        source: FrameSource,
        clock: Clock,
        extend_stride: Callable[[Job, int], None],  # called with the number of frames that a fallback covers
    ) -> None:
        self._plan, self._mec, self._heads, self._recorder = plan, mec, heads, recorder
        self._source, self._clock, self._extend_stride = source, clock, extend_stride
        self._jobs: list[Job] = []
        self._is_running = False

    @property
    def next_timer_s(self) -> float:
        """When ``run_timers`` has something to do. Inf during a fallback: its end runs the timers."""
        if self._is_running:
            return math.inf
        timers = (min(job.fall_back_s, job.overdue_s, job.give_up_s) for job in self._mec.in_flight)
        return min(timers, default=math.inf)

    def lost(self, job: Job, now_s: float) -> None:
        """The MEC will not answer: queue a fallback if one can still be in time, else give the frame up."""
        if self._plan.is_possible and not self._plan.is_hopeless(job, now_s):
            self._jobs.append(job)
        else:
            self._recorder.given_up(job, now_s)

    def run_timers(self, now_s: float) -> None:
        """Queue a fallback for each job in flight whose time has come, then run the queue."""
        for job in self._mec.in_flight:
            self._plan.renew_timer(job)
            if job.fall_back_s <= now_s:
                self._plan.wait_if_worth(job, now_s, self._mec)
            if min(job.fall_back_s, job.overdue_s) <= now_s:
                self._mec.note_overdue(job)
                job.overdue_s = math.inf
            if job.fall_back_s <= now_s:
                self._mec.release(job)
                self._jobs.append(job)
            elif job.give_up_s <= now_s:
                self._mec.release(job)
                self._recorder.given_up(job, now_s)
        while self._jobs and not self._is_running:
            self._fall_back(self._jobs.pop(0))

    def give_up_all(self, now_s: float) -> None:
        """Give up the jobs in flight and those that would fall back."""
        flying = self._mec.in_flight
        for job in flying:
            self._mec.release(job)
        left, self._jobs = [*flying, *self._jobs], []
        for job in left:
            self._recorder.given_up(job, now_s)

    def _fall_back(self, job: Job) -> None:
        began_s, slowdown = self._clock(), self._plan.slowdown
        due_s = self._plan.due_s(job, began_s)
        if self._plan.is_hopeless(job, began_s):
            self._plan.missed(due_s, began_s)
            self._recorder.given_up(job, began_s)
            return
        row, frames = self._plan.choose(job, began_s, len(self._jobs) + len(self._source.waiting))
        self._is_running = True
        self._extend_stride(job, frames)
        head = self._heads.run(job, row)
        now_s = self._clock()
        self._is_running = False
        self._heads.preempted(now_s - began_s)
        if head is None:
            self._recorder.given_up(job, now_s)
            return
        self._plan.ended(due_s, now_s, slowdown)
        answer, uplink_s = Answer(head.outputs, row), began_s - job.sent_s
        head_s = job.head_s + now_s - began_s
        self._recorder.answered(job, now_s, Status.FALLBACK, answer, head_s=head_s, uplink_s=uplink_s)
