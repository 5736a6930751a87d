"""The record of one step of the twin: what became of a decision. It is the source of every metric."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from controller.records import STATUSES as STATUSES
from controller.records import Bools, Floats, Ints, Status
from envs.twin.request import RequestTimes
from envs.twin.tables import TwinTables

_OK, _LATE, _FALLBACK = (STATUSES.index(s) for s in (Status.OK, Status.LATE, Status.FALLBACK))
_STATUS_OF = np.array([_LATE, _OK, _LATE, _FALLBACK])  # by on time + 2 * answered by a fallback


class Answer(NamedTuple):
    """How a frame ends. A fallback that is not used has no duration."""

    row: Ints  # whose answer it is
    sent: Bools  # the MEC was asked
    settled_s: Floats  # when the outcome is known
    on_time: Bools
    silent: Bools  # no answer came
    fell_back: Bools  # the device answered in the MEC's place
    fallback_s: Floats  # when a fallback after the head starts; infinite without
    fallback_busy_s: Floats
    overdue_s: Floats  # from when on the request counts as not answered in time; infinite if it is


class Reused(NamedTuple):
    """K frames of the batch that earlier answers stand for; they are in time and cost no energy."""

    env: Ints  # (K,) row of the batch
    frame: Ints  # (K,) number in its episode
    reason: Ints  # (K,) number in STATUSES
    score: Floats  # (K,) of the earlier answer on this frame
    frames: Ints  # (B,) how many in each environment
    total: Floats  # (B,) sum of their scores


@dataclass(frozen=True, slots=True)
class StepRecord:
    """What became of each row's decision, in raw terms; every array is (B,). What few ask for is made when asked."""

    frame: Ints
    row: Ints  # of the cost table, as carried out
    energy_j: Floats
    reused: Reused  # frames before the next decision that earlier answers stand for
    dropped: Ints  # frames dropped before the next decision
    reward: Floats  # utility of this frame, of those with a reused answer and of the dropped ones
    done: Bools  # this was the episode's last decision
    decided_s: Floats  # since the episode began
    capture_s: Floats
    first_sample: Ints
    flight: RequestTimes
    answer: Answer
    rules: TwinTables

    @property
    def status(self) -> Ints:
        """Index into STATUSES."""
        return np.asarray(_STATUS_OF.take(self.answer.on_time + 2 * self.answer.fell_back))

    @property
    def on_time(self) -> Bools:
        return self.answer.on_time

    @property
    def fell_back(self) -> Bools:
        """Whether the device answered in the MEC's place."""
        return self.answer.fell_back

    @property
    def answered(self) -> Bools:
        """Whether any answer came, in time or late."""
        return ~self.answer.silent

    @property
    def answer_row(self) -> Ints:
        """Row whose answer it is: a fallback's is not the decided one."""
        return self.answer.row

    @property
    def latency_s(self) -> Floats:
        """Capture to answer; the give-up time when none came."""
        return np.asarray(self.answer.settled_s - self.capture_s)

    @property
    def sample(self) -> Ints:
        """Column of the recorded scores."""
        return np.asarray((self.first_sample + self.frame) % self.rules.samples)

    @property
    def score(self) -> Floats:
        """Recorded score of the answer that was given; 0 without."""
        return np.asarray(recorded_score(self.rules, self.answer, self.sample) * ~self.answer.silent)

    @property
    def accuracy(self) -> Floats:
        """Expected score of the answer that was given; 0 without."""
        return np.asarray(self.rules.accuracy.take(self.answer.row) * ~self.answer.silent)

    @property
    def utility(self) -> Floats:
        """Of this frame alone."""
        return np.asarray(self.reward - self.reused_score + self.rules.utility.drop_penalty * self.dropped)

    @property
    def reused_frames(self) -> Ints:
        """How many frames have a reused answer."""
        return self.reused.frames

    @property
    def reused_score(self) -> Floats:
        """Sum of the scores of these."""
        return self.reused.total

    @property
    def frames(self) -> Ints:
        """Frames that the reward counts."""
        return np.asarray(1 + self.reused.frames + self.dropped)

    @property
    def payload_bytes(self) -> Floats:
        return np.asarray(self.flight.payload_bytes * self.answer.sent)

    def breakdown_s(self) -> dict[str, Floats]:
        """Terms of the latency as decided, also where a fallback answered; named as in BreakdownMs."""
        f, sent = self.flight, self.answer.sent
        return {
            "wait": self.decided_s - self.capture_s,
            "head": f.end_s - self.decided_s,
            "uplink": (f.arrival_s - f.end_s) * sent,
            "queue": f.queue_s * sent,
            "tail": f.tail_s * sent,
            "downlink": (f.reply_s - f.done_s) * sent,
        }


def recorded_score(rules: TwinTables, answer: Answer, sample: Ints) -> Any:
    """Score of the answering row's variant on the sample."""
    return rules.score.take(rules.score_start.take(answer.row) + sample)


def aged_score(rules: TwinTables, row: Ints, sample: Ints, lag: Ints) -> Any:
    """What the answer of ``row`` to ``sample`` scores for the frame that comes ``lag`` frames later."""
    lag = np.minimum(lag, len(rules.aged_score) - 1)
    if rules.replayed:
        return rules.aged_score[lag, rules.score_start.take(row) + sample]
    return rules.aged_accuracy[lag, row]
