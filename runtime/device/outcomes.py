"""Records the end of every frame: exactly one Outcome each, with its latency, energy, score and utility."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from controller.costs import CostTable
from controller.records import BreakdownMs, Outcome, Status
from controller.reuse import PastAnswer, Reuse
from controller.utility import Utility
from runtime.device.compute import Judge
from runtime.device.telemetry import DeviceTelemetry
from runtime.sources.frames import Frame


@dataclass(slots=True)
class Job:
    """A frame from its decision to its outcome. Times in seconds, points in time on the device's clock."""

    frame: Frame
    wait_s: float  # from capture to the decision point
    row: int = -1  # as decided
    decide_s: float = 0.0
    head_s: float = 0.0
    busy_s: float = 0.0  # device time, a fallback's included
    transmit_s: float | None = 0.0  # on the uplink; None while it is not known
    payload_bytes: int = 0
    sent_s: float = math.nan
    fall_back_s: float = math.inf
    expected_s: float = math.inf  # no fallback is to come, and from then on it counts as not answered in time
    give_up_s: float = math.inf


@dataclass(frozen=True, slots=True)
class Answer:
    """Outputs of an exit, and the row that gave them (not the decided one after a fallback)."""

    outputs: Any
    row: int


class _Judged(NamedTuple):
    """What a frame's answer is worth."""

    prediction: Any
    truth: Any
    score: float | None


class OutcomeRecorder:
    """Owns the outcomes that nobody has taken yet."""

    def __init__(
        self,
        judge: Judge,
        costs: CostTable,
        utility: Utility,
        deadline_s: float,
        telemetry: DeviceTelemetry,
        uplink_bps: Callable[[], float],  # the last sample of the uplink's bandwidth
        on_answer: Callable[[PastAnswer], None],  # called with every answer that was computed
        epoch_s: float | None = None,  # Unix time at 0 of the device's clock; None: simulated time
    ) -> None:
        self._judge, self._costs, self._utility = judge, costs, utility
        self._deadline_s = deadline_s
        self._telemetry, self._uplink_bps, self._epoch_s = telemetry, uplink_bps, epoch_s
        self._on_answer = on_answer
        self._outcomes: list[Outcome] = []

    def take(self) -> list[Outcome]:
        """Outcomes since the last call."""
        taken, self._outcomes = self._outcomes, []
        return taken

    def answered(
        self,
        job: Job,
        now_s: float,
        on_time: Status,
        answer: Answer,
        *,
        head_s: float,
        uplink_s: float = 0.0,
        queue_s: float = 0.0,
        tail_s: float = 0.0,
        downlink_s: float = 0.0,
    ) -> None:
        """A frame has its answer; ``on_time`` is its status unless the deadline has passed."""
        status = on_time if now_s - job.frame.captured_s <= self._deadline_s else Status.LATE
        source = job.frame.source_index
        judged = _Judged(*self._judge.judge(source, answer.outputs, self._costs.space.decisions[answer.row]))
        self._on_answer(PastAnswer(job.frame.index, now_s, judged.prediction))
        breakdown = _breakdown(job, head_s, uplink_s, queue_s, tail_s, downlink_s)
        self._add(job, now_s, status, breakdown, judged)

    def given_up(self, job: Job, now_s: float) -> None:
        """No answer came and none is worth computing."""
        waited_s = 0.0 if math.isnan(job.sent_s) else now_s - job.sent_s
        breakdown = _breakdown(job, job.head_s, waited_s)
        self._add(job, now_s, Status.LATE, breakdown, self._unanswered(job.frame))

    def dropped(self, frame: Frame, now_s: float) -> None:
        """The queue was full."""
        job = Job(frame, now_s - frame.captured_s)
        self._add(job, now_s, Status.DROPPED, _breakdown(job, 0.0), self._unanswered(frame))

    def reused(self, frame: Frame, reuse: Reuse, busy_s: float = 0.0) -> None:
        """An earlier answer stands for the frame, which is not run. ``busy_s`` is the device time of finding that."""
        judged, answer = self._unanswered(frame), reuse.answer
        if answer is not None:
            score = None if judged.truth is None else self._judge.score(answer.prediction, judged.truth)
            judged = _Judged(answer.prediction, judged.truth, score)
        job = Job(frame, reuse.latency_s(frame.captured_s), busy_s=busy_s)
        source = None if answer is None else answer.frame
        self._add(job, frame.captured_s + job.wait_s, reuse.reason, _breakdown(job, 0.0), judged, source)

    def _unanswered(self, frame: Frame) -> _Judged:
        truth = self._judge.truth(frame.source_index)
        return _Judged(None, truth, None if truth is None else 0.0)

    def _add(
        self,
        job: Job,
        now_s: float,
        status: Status,
        breakdown: BreakdownMs,
        judged: _Judged,
        reused_frame: int | None = None,
    ) -> None:
        energy_j = self._utility.energy_j(job.busy_s, self._transmit_s(job))
        if not status.reused:  # says nothing about what was decided
            self._telemetry.on_outcome(status)
        self._outcomes.append(
            Outcome(
                frame=job.frame.index,
                source_index=self._judge.source_index(job.frame.source_index),
                status=status,
                latency_ms=round((now_s - job.frame.captured_s) * 1e3, 3),
                deadline_ms=round(self._deadline_s * 1e3, 3),
                payload_bytes=job.payload_bytes,
                energy_j=round(energy_j, 6),
                utility=None if judged.score is None else self._utility_of(status, judged.score, energy_j),
                decision=None if job.row < 0 else self._costs.space.decisions[job.row],
                breakdown_ms=breakdown,
                prediction=judged.prediction,
                truth=judged.truth,
                score=None if judged.score is None else float(judged.score),
                captured_at=None if self._epoch_s is None else round(self._epoch_s + job.frame.captured_s, 3),
                reused_frame=reused_frame,
            )
        )

    def _utility_of(self, status: Status, score: float, energy_j: float) -> float:
        utility = self._utility.of(
            np.array([score]),
            np.array([status.on_time]),
            np.array([energy_j]),
            np.array([status.dropped]),
        )
        return round(float(utility[0]), 6)

    def _transmit_s(self, job: Job) -> float:
        """Time on the uplink; where no reply told it, what the last sample of the bandwidth says."""
        if job.transmit_s is not None:
            return job.transmit_s
        return job.payload_bytes * 8.0 / self._uplink_bps()


def _breakdown(
    job: Job, head_s: float, uplink_s: float = 0.0, queue_s: float = 0.0, tail_s: float = 0.0, downlink_s: float = 0.0
) -> BreakdownMs:
    terms_s = (job.wait_s, job.decide_s, head_s, uplink_s, queue_s, tail_s, downlink_s)
    return BreakdownMs(*(round(term_s * 1e3, 3) for term_s in terms_s))
