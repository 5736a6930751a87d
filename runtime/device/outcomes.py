"""Records how each frame ended: one Outcome with its latency, energy, score and utility."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from controller.costs import CostTable
from controller.forecast import Forecaster, Shown
from controller.records import BreakdownMs, Decision, Outcome, Region, Status
from controller.regions import Aim
from controller.reuse import PastAnswer, Reuse, past_answer
from controller.utility import Utility
from runtime.device.compute import Judge
from runtime.device.telemetry import DeviceTelemetry
from runtime.link.senders import Draft
from runtime.sources.frames import Frame


@dataclass(slots=True)
class Job:
    """A frame between its decision and its outcome. Durations in seconds; points in time on the device's clock."""

    frame: Frame
    wait_s: float  # from capture to the decision point
    row: int = -1  # the decided one; -1 before the decision
    decide_s: float = 0.0
    head_s: float = 0.0
    busy_s: float = 0.0  # device time, including that of a fallback
    transmit_s: float | None = 0.0  # time on the uplink; None until it is known
    payload_bytes: int = 0  # of everything that was sent
    sent_s: float = math.nan
    draft: Draft | None = None  # of a payload that may refer to an earlier one
    resent_s: float = math.nan  # when it was sent once more
    fall_back_s: float = math.inf  # when it must fall back
    overdue_s: float = math.inf  # when its reply becomes overdue, if no fallback is planned
    give_up_s: float = math.inf  # when the device stops waiting for the reply
    aim: Aim | None = None  # of a decision with a crop
    aimed_s: float = math.nan  # when the look for its window began


@dataclass(frozen=True, slots=True)
class Answer:
    """Outputs of an exit, and the path of the cost table that was run. That is the decided row, unless a fallback or an
    exit on the way answers."""

    outputs: Any
    path: int


class _Judged(NamedTuple):
    """A frame's prediction (None without an answer), truth (None if unknown) and score (None without a truth)."""

    shown: Shown
    truth: Any
    score: float | None
    region: Region | None = None


class OutcomeRecorder:
    """Owns the outcomes since the last ``take``."""

    def __init__(
        self,
        judge: Judge,
        costs: CostTable,
        utility: Utility,
        deadline_s: float,
        telemetry: DeviceTelemetry,
        uplink_bps: Callable[[], float],  # newest sample of the uplink's bandwidth
        on_answer: Callable[[PastAnswer], None],  # called with every computed answer
        epoch_s: float | None = None,  # Unix time at 0 of the device's clock; None in simulated time
        forecaster: Forecaster | None = None,  # of what answers become at later frames
    ) -> None:
        self._judge, self._costs, self._utility = judge, costs, utility
        self._deadline_s = deadline_s
        self._telemetry, self._uplink_bps, self._epoch_s = telemetry, uplink_bps, epoch_s
        self._on_answer, self._forecaster = on_answer, forecaster
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
        mec: str = "",
    ) -> None:
        """Record a computed answer. The status is ``on_time``, or LATE if the deadline has passed. ``mec``: who
        answered, where there are several."""
        status = on_time if now_s - job.frame.captured_s <= self._deadline_s else Status.LATE
        source = job.frame.source_index
        decision = self._costs.paths.space.decisions[answer.path]
        prediction, truth, score = self._judge.judge(source, answer.outputs, decision)
        region, kept = None, None
        if decision.crop and job.aim is not None:
            prediction, seen, kept = job.aim.completed(prediction, job.frame.index)
            score = None if truth is None else self._judge.score(prediction, truth)
            region = job.aim.region(seen)
        expected = float(self._costs.paths.accuracy[answer.path])
        past = past_answer(job.frame.index, now_s, prediction, self._forecaster, expected, kept)
        self._on_answer(past)
        self._observe(past, answer.outputs, decision)
        judged = _Judged(Shown(prediction, past.track_ids), truth, score, region)
        breakdown = _breakdown(job, head_s, uplink_s, queue_s, tail_s, downlink_s)
        early_exit = decision.exit_branch if answer.path >= len(self._costs) else None
        self._add(job, now_s, status, breakdown, judged, early_exit=early_exit, mec=mec or None)

    def _observe(self, past: PastAnswer, outputs: Any, decision: Decision) -> None:
        """Let telemetry know what the answer says of the scene. Where samples are no stream, it says nothing of the
        next one."""
        if self._costs.lagged_accuracy is not None:
            speed = None if past.forecast is None else past.forecast.speed
            self._telemetry.on_answer(past.frame, self._judge.confidence(outputs, decision), speed)

    def given_up(self, job: Job, now_s: float) -> None:
        """Record a frame without an answer as LATE."""
        waited_s = 0.0 if math.isnan(job.sent_s) else now_s - job.sent_s
        breakdown = _breakdown(job, job.head_s, waited_s)
        self._add(job, now_s, Status.LATE, breakdown, self._unanswered(job.frame))

    def dropped(self, frame: Frame, now_s: float) -> None:
        """Record a frame that was captured but neither decided nor answered as DROPPED."""
        job = Job(frame, now_s - frame.captured_s)
        self._add(job, now_s, Status.DROPPED, _breakdown(job, 0.0), self._unanswered(frame))

    def reused(self, frame: Frame, reuse: Reuse, busy_s: float = 0.0) -> None:
        """Record a frame that an earlier answer stands for. ``busy_s``: device time of the shortcut."""
        judged, answer = self._unanswered(frame), reuse.answer
        if answer is not None:
            shown = reuse.shown(frame.index)
            score = None if judged.truth is None else self._judge.score(shown.prediction, judged.truth)
            judged = _Judged(shown, judged.truth, score)
        job = Job(frame, reuse.latency_s(frame.captured_s), busy_s=busy_s)
        source = None if answer is None else answer.frame
        self._add(job, frame.captured_s + job.wait_s, reuse.reason, _breakdown(job, 0.0), judged, source)

    def _unanswered(self, frame: Frame) -> _Judged:
        truth = self._judge.truth(frame.source_index)
        return _Judged(Shown(None), truth, None if truth is None else 0.0)

    def _add(
        self,
        job: Job,
        now_s: float,
        status: Status,
        breakdown: BreakdownMs,
        judged: _Judged,
        reused_frame: int | None = None,
        early_exit: int | None = None,
        mec: str | None = None,
    ) -> None:
        energy_j = self._utility.energy_j(job.busy_s, self._transmit_s(job))
        if not status.reused:  # a reused frame had no decision that telemetry could learn from
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
                prediction=judged.shown.prediction,
                truth=judged.truth,
                score=None if judged.score is None else float(judged.score),
                captured_at=None if self._epoch_s is None else round(self._epoch_s + job.frame.captured_s, 3),
                reused_frame=reused_frame,
                uplink_bytes=self._costs.request_bytes(job.payload_bytes) if job.payload_bytes else 0,
                early_exit=early_exit,
                track_ids=judged.shown.track_ids,
                region=judged.region,
                mec=mec,
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
        """Seconds on the uplink; estimated from the last bandwidth sample if it was not measured."""
        if job.transmit_s is not None:
            return job.transmit_s
        return self._costs.request_bytes(job.payload_bytes) * 8.0 / self._uplink_bps()


def _breakdown(
    job: Job, head_s: float, uplink_s: float = 0.0, queue_s: float = 0.0, tail_s: float = 0.0, downlink_s: float = 0.0
) -> BreakdownMs:
    terms_s = (job.wait_s, job.decide_s, head_s, uplink_s, queue_s, tail_s, downlink_s)
    return BreakdownMs(*(round(term_s * 1e3, 3) for term_s in terms_s))
