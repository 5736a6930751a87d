"""The record of one step of the twin: what became of a decision. It is the source of every metric."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from controller.records import STATUSES, Bools, Floats, Ints, Status
from envs.twin.state import record_type
from envs.twin.tables import TwinTables

_OK, _LATE, _FALLBACK, _SKIPPED = (STATUSES.index(s) for s in (Status.OK, Status.LATE, Status.FALLBACK, Status.SKIPPED))
_STATUS_OF = np.array([_LATE, _OK, _LATE, _FALLBACK])  # by on time + 2 * answered by a fallback

#: What becomes of one frame, in the order of the timeline. Times are in seconds since the episode began.
RECORD = record_type(
    frame="i8",
    sample="i8",  # column of the recorded scores
    row="i8",  # of the cost table, as carried out
    path="i8",  # what becomes of it: the row, or an exit on the way that answers (``controller.gates``)
    decided_s="f8",
    capture_s="f8",
    looked_s="f8",  # device time that shortcuts took for it before the decision
    # As decided. From the payload on, where the MEC was to be asked only:
    head_s="f8",  # device time of the head segment alone
    end_s="f8",  # when the head ends; fallbacks that preempt it included
    request_bytes="f8",  # its payload
    uplink_bytes="f8",  # the whole message on the wire
    begin_s="f8",  # the payload starts to cross
    crossed_s="f8",
    arrival_s="f8",  # at the MEC
    queue_s="f8",
    served="?",  # by the MEC; otherwise the request expired there
    tail_s="f8",
    done_s="f8",
    own_work_s="f8",  # work at the MEC because of own requests, this one included
    reply_s="f8",  # infinite where the MEC was not to be asked
    # How the frame ended:
    sent="?",  # the MEC was asked
    answer_row="i8",  # whose answer it is: a fallback's or that of an exit on the way is not the decided one
    settled_s="f8",  # when the outcome is known
    on_time="?",
    silent="?",  # no answer came
    fell_back="?",  # the device answered in the MEC's place
    fallback_s="f8",  # when a fallback after the head starts; infinite without
    fallback_busy_s="f8",  # how long it takes
    overdue_s="f8",  # from when on the request counts as not answered in time; infinite if it is
    # The frames until the next decision:
    first="i8",  # number of the first that the stride does not cover
    passed_frames="i8",  # of those from there on, answered by a shortcut
    reused_frames="i8",  # with a reused answer, those of shortcuts included
    reused_score="f8",  # sum of their scores
    reused_energy_j="f8",  # that shortcuts took for them
    dropped="i8",
    done="?",  # this was the episode's last decision
    energy_j="f8",
    utility="f8",  # of this frame alone
    reward="f8",  # utility of this frame, of those with a reused answer and of the dropped ones
)


class Reused(NamedTuple):
    """K frames of the batch that earlier answers stand for; they are in time."""

    env: Ints  # (K,) row of the batch
    frame: Ints  # (K,) number in its episode
    reason: Ints  # (K,) number in STATUSES
    score: Floats  # (K,) of the earlier answer on this frame
    energy_j: Floats  # (K,) of the shortcut that found it; 0 for a frame stride


@dataclass(frozen=True, slots=True)
class StepRecord:
    """What became of each row's decision, in raw terms: every field of RECORD is an attribute, (B,)."""

    records: Any  # (B,) RECORD
    skipped: Floats  # (B, most) scores of the frames that the stride covers, one after another
    passed: Reused | None  # frames that shortcuts answered
    tables: TwinTables

    def __getattr__(self, name: str) -> Any:
        try:
            return self.records[name]
        except ValueError:
            raise AttributeError(f"a step's record has no {name!r}") from None

    @property
    def status(self) -> Ints:
        """Index into STATUSES."""
        return np.asarray(_STATUS_OF.take(self.on_time + 2 * self.fell_back))

    @property
    def answered(self) -> Bools:
        """Whether any answer came, in time or late."""
        return ~self.silent

    @property
    def latency_s(self) -> Floats:
        """Capture to answer; the give-up time when none came."""
        return np.asarray(self.settled_s - self.capture_s)

    @property
    def score(self) -> Floats:
        """Recorded score of the answer that was given; 0 without."""
        start = self.tables.decisions["score_start"].take(self.answer_row)
        return np.asarray(self.tables.aged_score[0].take(start + self.sample) * ~self.silent)

    @property
    def accuracy(self) -> Floats:
        """Expected score of the answer that was given; 0 without."""
        return np.asarray(self.tables.aged_accuracy[0].take(self.answer_row) * ~self.silent)

    @property
    def frames(self) -> Ints:
        """Frames that the reward counts."""
        return np.asarray(1 + self.reused_frames + self.dropped)

    @property
    def payload_bytes(self) -> Floats:
        """That was handed to the link."""
        return np.asarray(self.request_bytes * self.sent)

    @property
    def reused(self) -> Reused:
        """The frames before the next decision that earlier answers stand for."""
        count = self.reused_frames - (0 if self.passed is None else self.passed_frames)
        env, place = np.nonzero(np.arange(self.skipped.shape[1]) < count[:, None])
        frame, reason = self.frame[env] + 1 + place, np.full(len(env), _SKIPPED)
        covered = Reused(env, frame, reason, self.skipped[env, place], np.zeros(len(env)))
        if self.passed is None:
            return covered
        return Reused(*(np.concatenate(pair) for pair in zip(covered, self.passed, strict=True)))

    def breakdown_s(self) -> dict[str, Floats]:
        """Terms of the latency as decided, also where a fallback answered; named as in BreakdownMs."""
        sent = self.sent
        return {
            "wait": self.decided_s - self.capture_s,
            "head": self.end_s - self.decided_s,
            "uplink": (self.arrival_s - self.end_s) * sent,
            "queue": self.queue_s * sent,
            "tail": self.tail_s * sent,
            "downlink": np.where(sent, self.reply_s, 0.0) - np.where(sent, self.done_s, 0.0),
        }
