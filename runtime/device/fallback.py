"""When a frame must be answered locally in the MEC's place, and by which row.

A frame that was offloaded waits for its reply until the latest moment at which the fastest local row still ends before
the deadline. Which row answers best is decided in ``controller.fallback``, for the twin's devices too. How much longer
a fallback takes than its head, on a real machine, is learnt here.
"""

from __future__ import annotations

import math

from controller import timeline as formulas
from controller.costs import CostTable
from controller.fallback import FrameTiming, LocalFallback
from controller.records import SystemState
from controller.scenario import Scenario
from controller.utility import Utility
from runtime.device.outcomes import Job
from runtime.device.telemetry import DeviceTelemetry

#: This share of an overrun beyond the expected one is added to the expectation.
_BELIEVED_FRAC = 0.5
#: Otherwise this share of the expectation is kept, so that one long overrun is forgotten within some dozens of
#: fallbacks.
_KEPT_FRAC = 0.98
#: An expected overrun takes at most this share of the deadline.
_MOST_OVERRUN_FRAC = 0.25


class FallbackReserve:
    """Owns how long before the deadline a fallback must begin, so that the fastest local row ends in time.

    A fallback takes longer than its head where the machine is busy, or where it preempts a head whose current stage
    must end first. How much longer is learnt from past fallbacks.
    """

    def __init__(self, fastest_s: float) -> None:
        self._fastest_s = fastest_s
        self._overrun_s = 0.0

    def reserve_s(self, slowdown: float) -> float:
        """How long before the deadline a fallback must begin."""
        return formulas.fallback_reserve_s(self._fastest_s * slowdown) + self._overrun_s

    def learn(self, took_s: float, slowdown: float, deadline_s: float) -> None:
        """A fallback ended ``took_s`` after it was due; -inf when it was not due yet, which teaches nothing."""
        if took_s == -math.inf:
            return
        overrun_s = took_s - formulas.FALLBACK_MARGIN * self._fastest_s * slowdown
        if overrun_s > self._overrun_s:
            most_s = _MOST_OVERRUN_FRAC * deadline_s
            self._overrun_s = min(self._overrun_s + _BELIEVED_FRAC * (overrun_s - self._overrun_s), most_s)
        else:
            self._overrun_s *= _KEPT_FRAC

    def missed(self, late_s: float, slowdown: float, deadline_s: float) -> None:
        """The device looked ``late_s`` after a fallback was due, too late to try it."""
        self.learn(late_s + self._fastest_s * slowdown, slowdown, deadline_s)


class FallbackPlan:
    """Answers the loop's questions about local answers. Owns the reserve and when the last fallback ended."""

    def __init__(
        self, costs: CostTable, scenario: Scenario, utility: Utility, queue_limit: int, telemetry: DeviceTelemetry
    ) -> None:
        self._stride = costs.space.frame_stride
        self._deadline_s, self._period_s = scenario.deadline_s, 1.0 / scenario.fps
        self._telemetry = telemetry
        self._local = LocalFallback(costs, utility, queue_limit)
        self._reserve = FallbackReserve(float(costs.head_s[costs.local_frontier[:1]].sum()))
        self._ended_s = -math.inf

    @property
    def is_possible(self) -> bool:
        """Whether any row runs on the device alone; without one, only ``set_timers`` may be called."""
        return self._local.possible

    @property
    def is_useful(self) -> bool:
        """Whether a frame that is not offloaded can be in time. Where none can, a frame loses nothing by being
        offloaded in vain, or by waiting until fewer are in flight."""
        return self.is_possible and not self._ends_too_late(self._deadline_s)

    def is_hopeless(self, job: Job, now_s: float) -> bool:
        """Not even the fastest row would end before the deadline."""
        return self._ends_too_late(job.frame.captured_s + self._deadline_s - now_s)

    def local_row(self, state: SystemState) -> int:
        """The row to take where the controller gave no decision."""
        return self._local.decide(FrameTiming.of(state))

    def row_instead(self, row: int, job: Job, now_s: float) -> int:
        """The local row to carry out where ``row`` was decided and the MEC cannot be asked."""
        return self._local.instead(self._timing(job, now_s), row)

    def set_timers(self, job: Job, now_s: float) -> None:
        """When an offloaded job falls back (or counts as overdue, if it is too late for that) and is given up."""
        job.give_up_s = job.frame.captured_s + formulas.GIVE_UP_DEADLINES * self._deadline_s
        fall_back_s = self._latest_start_s(job)
        if now_s <= fall_back_s and self.is_possible:
            job.fall_back_s = fall_back_s
        else:
            job.expected_s = max(job.frame.captured_s + self._deadline_s, now_s)

    def renew_timer(self, job: Job) -> None:
        """Move the moment of a pending fallback to what the device's slowdown says now."""
        if job.fall_back_s < math.inf:
            job.fall_back_s = self._latest_start_s(job)

    def choose(self, job: Job, now_s: float, waiting: int) -> tuple[int, int]:
        """The row of a fallback, and the number of frames that it covers where none of the next ones was decided.

        At the latest moment this is the fastest row. Before, it is the best one that fits the frame's share of the
        device's time, divided by 1 + the number of ``waiting`` frames. A fallback that takes longer than its share
        covers the frames that are captured meanwhile.
        """
        situation, stride = self._timing(job, now_s), int(self._stride[job.row])
        share_s = stride * self._period_s - job.busy_s
        row = self._local.fastest
        if now_s < self._latest_start_s(job):
            row = self._local.fallback(situation, stride, share_s / (1 + waiting))
        return row, self._local.stretched(situation, stride, row, share_s)

    def due_s(self, job: Job, now_s: float) -> float:
        """Since when this fallback could have begun; inf if it begins before its time, because the job was lost."""
        return max(job.fall_back_s, self._ended_s) if job.fall_back_s <= now_s else math.inf

    def ended(self, due_s: float, now_s: float, slowdown: float) -> None:
        """A fallback ended now; ``slowdown`` is the device's when it began."""
        self._reserve.learn(now_s - due_s, slowdown, self._deadline_s)
        self._ended_s = now_s

    def missed(self, due_s: float, now_s: float) -> None:
        """A fallback was not tried, because it was too late."""
        self._reserve.missed(now_s - due_s, self._telemetry.slowdown, self._deadline_s)

    def _latest_start_s(self, job: Job) -> float:
        reserve_s = self._reserve.reserve_s(self._telemetry.slowdown)
        return job.frame.captured_s + self._deadline_s - reserve_s

    def _ends_too_late(self, left_s: float) -> bool:
        return self._local.hopeless(left_s, self._telemetry.slowdown)

    def _timing(self, job: Job, now_s: float) -> FrameTiming:
        """The frame at a moment."""
        return FrameTiming(now_s - job.frame.captured_s, self._deadline_s, self._period_s, self._telemetry.slowdown)
