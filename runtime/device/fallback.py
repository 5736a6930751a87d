"""Plans fallbacks: when an offloaded frame must be answered locally instead, and by which row.

An offloaded frame waits for its reply until the latest moment at which the fastest local row still ends before the
deadline; then ``controller.waiting`` says whether it waits on. ``controller.fallback`` chooses the row. The twin shares
both. How much longer than its head a fallback takes on a real machine is learned here.
"""

from __future__ import annotations

import math

from controller import timeline as formulas
from controller.costs import CostTable
from controller.fallback import FrameTiming, LocalFallback
from controller.records import SystemState
from controller.scenario import Scenario
from controller.utility import Utility
from controller.waiting import is_worth_waiting
from runtime.device.outcomes import Job
from runtime.device.telemetry import DeviceTelemetry
from runtime.link.mecs.port import MecPort

#: The expected overrun moves up by this share of the difference to a longer one.
_RISE_FRAC = 0.5
#: After a shorter one it decays by this factor: one long overrun is forgotten within a few dozen fallbacks.
_DECAY = 0.98
#: Upper bound of the expected overrun, as a share of the deadline.
_MOST_OVERRUN_FRAC = 0.25


class FallbackReserve:
    """Owns how long before the deadline a fallback must begin, so that the fastest local row ends in time.

    A fallback takes longer than its head if the machine is busy, or if it preempts a head whose current stage must end
    first. Past fallbacks show how much longer.
    """

    def __init__(self, fastest_s: float) -> None:
        self._fastest_s = fastest_s
        self._overrun_s = 0.0

    def reserve_s(self, slowdown: float) -> float:
        """How long before the deadline a fallback must begin, in seconds."""
        return formulas.fallback_reserve_s(self._fastest_s * slowdown) + self._overrun_s

    def learn(self, took_s: float, slowdown: float, deadline_s: float) -> None:
        """Learn from a fallback that ended ``took_s`` after it was due; -inf (it was not due yet) is ignored."""
        if took_s == -math.inf:
            return
        overrun_s = took_s - formulas.FALLBACK_MARGIN * self._fastest_s * slowdown
        if overrun_s > self._overrun_s:
            most_s = _MOST_OVERRUN_FRAC * deadline_s
            self._overrun_s = min(self._overrun_s + _RISE_FRAC * (overrun_s - self._overrun_s), most_s)
        else:
            self._overrun_s *= _DECAY

    def missed(self, late_s: float, slowdown: float, deadline_s: float) -> None:
        """Learn from a fallback that was not started, because the device polled ``late_s`` after it was due."""
        self.learn(late_s + self._fastest_s * slowdown, slowdown, deadline_s)


class FallbackPlan:
    """Decides when and how frames are answered locally. Owns the reserve and when the last fallback ended."""

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
        """Whether a local answer can meet the deadline. If not, a frame loses nothing by an offload that fails, or by
        waiting until fewer are in flight."""
        return self.is_possible and not self._ends_too_late(self._deadline_s)

    @property
    def slowdown(self) -> float:
        """Device time / profiled time, as measured."""
        return self._telemetry.slowdown

    def is_hopeless(self, job: Job, now_s: float) -> bool:
        """Not even the fastest row would end before the deadline."""
        return self._ends_too_late(job.frame.captured_s + self._deadline_s - now_s)

    def local_row(self, state: SystemState) -> int:
        """The row to execute if the controller failed to decide."""
        return self._local.decide(FrameTiming.of(state))

    def row_instead(self, row: int, job: Job, now_s: float) -> int:
        """The local row to execute if ``row`` was decided but the MEC cannot be asked."""
        return self._local.instead(self._timing(job, now_s), row)

    def set_timers(self, job: Job, now_s: float) -> None:
        """Set when an offloaded job falls back (or becomes overdue, if it is too late for that) and is given up."""
        job.give_up_s = job.frame.captured_s + formulas.GIVE_UP_DEADLINES * self._deadline_s
        fall_back_s = self._latest_start_s(job)
        if now_s <= fall_back_s and self.is_possible:
            job.fall_back_s = fall_back_s
        else:
            job.overdue_s = max(job.frame.captured_s + self._deadline_s, now_s)

    def can_wait(self, job: Job, until_s: float) -> bool:
        """Whether the reply to an offloaded job may still come when it comes after ``until_s``."""
        return until_s < min(job.fall_back_s, job.frame.captured_s + self._deadline_s)

    def renew_timer(self, job: Job) -> None:
        """Adjust the time of a planned fallback to the device's current slowdown."""
        if job.fall_back_s < math.inf:
            job.fall_back_s = self._latest_start_s(job)

    def wait_if_worth(self, job: Job, now_s: float, mec: MecPort[Job]) -> None:
        """The last moment of a job: plan no fallback any more if it earns more by waiting (``controller.waiting``). The
        reply then becomes overdue at the deadline."""
        answer_by_s, stride = job.frame.captured_s + self._deadline_s, int(self._stride[job.row])
        chance = mec.reply_chance(job, now_s, answer_by_s)
        if is_worth_waiting(self._local.table, self._timing(job, now_s), job.row, stride, job.busy_s, chance):
            job.fall_back_s, job.overdue_s = math.inf, answer_by_s

    def choose(self, job: Job, now_s: float, waiting: int) -> tuple[int, int]:
        """The row of a fallback, and the number of frames that it covers if none of the next ones was decided.

        At the latest start it is the fastest row. Earlier, it is the best one that fits the frame's share of device
        time, divided by 1 + the number of ``waiting`` frames. A fallback that takes longer than its share covers the
        frames captured meanwhile.
        """
        timing, stride = self._timing(job, now_s), int(self._stride[job.row])
        share_s = stride * self._period_s - job.busy_s
        row = self._local.fastest
        if now_s < self._latest_start_s(job):
            row = self._local.fallback(timing, stride, share_s / (1 + waiting))
        return row, self._local.stretched(timing, stride, row, share_s)

    def due_s(self, job: Job, now_s: float) -> float:
        """When this fallback could have begun at the earliest; inf if it begins ahead of time because the job was
        lost."""
        return max(job.fall_back_s, self._ended_s) if job.fall_back_s <= now_s else math.inf

    def ended(self, due_s: float, now_s: float, slowdown: float) -> None:
        """A fallback ended now; ``slowdown`` is the device's at its start."""
        self._reserve.learn(now_s - due_s, slowdown, self._deadline_s)
        self._ended_s = now_s

    def missed(self, due_s: float, now_s: float) -> None:
        """A fallback was not started, because it was too late."""
        self._reserve.missed(now_s - due_s, self.slowdown, self._deadline_s)

    def _latest_start_s(self, job: Job) -> float:
        return job.frame.captured_s + self._deadline_s - self._reserve.reserve_s(self.slowdown)

    def _ends_too_late(self, left_s: float) -> bool:
        return self._local.hopeless(left_s, self._telemetry.slowdown)

    def _timing(self, job: Job, now_s: float) -> FrameTiming:
        """The frame at a moment."""
        return FrameTiming(now_s - job.frame.captured_s, self._deadline_s, self._period_s, self._telemetry.slowdown)
