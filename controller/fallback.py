"""The rule for local answers: which device-only row answers a frame when the MEC cannot be asked.

Device and twin share this rule, so they agree. It applies when a decision cannot be carried out (the link is down,
full or silent), when a frame gets no reply, and when a controller fails.

A row *sustains* the stream if three things hold: the frame at hand is in time, no frame is dropped meanwhile, and the
device is free again by the next decision when it goes on like this. Among the rows that sustain the stream, the one
with the most utility per frame wins. The deadline gets a reserve for the noise of device times. The pace needs none:
noise makes one head longer and another one shorter, and a backlog shows in the age of the next frame, which then gets
a faster row.

Where no row sustains the stream, the one with the most utility per frame in the long run wins:

* A head that takes longer than its ``period`` (frame stride times capture period) loses one frame per capture period
  of excess. A lost frame earns nothing, costs the drop penalty, and counts in the mean. The queue is then always full,
  so a frame waits for between ``queue_limit - 1`` and ``queue_limit`` capture periods before it starts.
* A head that takes less than its period works off the backlog frame by frame; until then, frames are late.
* An answer that comes too late still stands for the frames that are skipped.

Shapes: B frames, L device-only rows.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from controller.costs import CostTable
from controller.predict.expectation import skipped_score
from controller.records import Bools, Floats, Ints, SystemState
from controller.scenario import QUEUE_LIMIT
from controller.utility import Utility

#: Reserve on the predicted device time: 2.6 standard deviations of its noise.
HEAD_RESERVE_FRAC = 0.08
#: Reserve for deciding and waking up.
SLACK_S = 0.002
#: Frames of the long run, in which a backlog counts by its share.
_HORIZON = 20.0
#: Bonus of a row that sustains the stream; more than any utility.
_SUSTAINS = 10.0
_LEAST_S = 1e-9
#: A local decision stands if its utility per frame is at most this much below the best.
_AS_GOOD = 0.005


class FrameTiming(NamedTuple):
    """The frames to be answered, (B,) each; times in seconds."""

    age_s: Floats  # since its capture
    deadline_s: Floats
    capture_period_s: Floats
    slowdown: Floats  # estimate of the device's slowdown

    @classmethod
    def of(cls, state: SystemState) -> FrameTiming:
        """The frames that a state is about."""
        return cls(state.frame_age_s, state.deadline_s, state.capture_period_s, state.device_slowdown)

    def at(self, where: Any) -> FrameTiming:
        """Every field indexed with ``where``."""
        return FrameTiming(
            self.age_s[where], self.deadline_s[where], self.capture_period_s[where], self.slowdown[where]
        )

    def against_rows(self) -> FrameTiming:
        """Every field as (B, 1)."""
        return self.at(np.s_[:, None])


class LocalFallback:
    """Chooses the device's own answers. Stateless."""

    def __init__(self, costs: CostTable, utility: Utility, queue_limit: int = QUEUE_LIMIT) -> None:
        self._costs, self._utility, self._queue_limit = costs, utility, queue_limit
        self._rows, self._plain = np.flatnonzero(costs.space.device_only), costs.local_frontier
        self._place = np.full(len(costs), -1)  # index of a row among the device-only ones
        self._place[self._rows] = np.arange(len(self._rows))
        self._cost_per_s = float(utility.energy_weight_per_j * utility.energy_j(1.0, 0.0))  # utility of busy time
        if self.possible:
            self._table, self._plain_table = costs.take(self._rows), costs.take(self._plain)

    @property
    def possible(self) -> bool:
        """Whether any row is device-only. If not, no method below may be called."""
        return len(self._rows) > 0

    @property
    def fastest(self) -> int:
        """The fastest device-only row: the one of a fallback at the last moment."""
        return int(self._plain[0])

    def decide(self, at: FrameTiming) -> Ints:
        """(B,) rows for frames without a decision."""
        return np.asarray(self._rows[self._value(at).argmax(axis=1)])

    def instead(self, at: FrameTiming, rows: Ints) -> Ints:
        """(B,) rows to carry out where ``rows`` (B,) were decided and the MEC cannot be asked.

        A device-only decision stands while it is nearly as good as the best.
        """
        value, place = self._value(at), self._place.take(rows)
        batch, best = np.arange(len(rows)), value.argmax(axis=1)
        stands = (place >= 0) & (value[batch, place] >= value[batch, best] - _AS_GOOD)
        return np.where(stands, rows, self._rows.take(best))

    def _value(self, at: FrameTiming) -> Floats:
        """(B, L) value of each device-only row; rows that sustain the stream come before all others."""
        s, table = at.against_rows(), self._table
        period, head = s.capture_period_s * table.stride, s.slowdown * table.head_s
        room_s = np.minimum(s.deadline_s - SLACK_S, period + self._queue_limit * s.capture_period_s)
        sustains = (head <= period) & (s.age_s + (1.0 + HEAD_RESERVE_FRAC) * head <= room_s)
        skipped = self._skipped(s.age_s + head, s.capture_period_s)
        value = (table.accuracy + skipped - self._cost_per_s * head) / table.stride + _SUSTAINS * sustains
        overloaded = np.flatnonzero(~np.logical_or.reduce(sustains, axis=1))
        if len(overloaded):  # computed apart, because it takes several times as long
            s, head, period = s.at(overloaded), head[overloaded], period[overloaded]
            age = np.where(head > period, (self._queue_limit - 0.5) * s.capture_period_s, s.age_s)
            score = table.accuracy * self._on_time(s, head, period) + self._skipped(age + head, s.capture_period_s)
            value[overloaded] = self._per_frame(s, head, period, score, table.stride)
        return np.asarray(value)

    def _skipped(self, answer_s: Floats, capture_period_s: Floats) -> Floats | float:
        """(B, L) sum of the scores of the skipped frames; ``answer_s`` (B, L) counts from capture."""
        return skipped_score(self._table, answer_s / capture_period_s) if self._table.longest_stride > 1 else 0.0

    def fallback(self, at: FrameTiming, stride: Ints, share_s: Floats) -> Ints:
        """(B,) rows that answer decided frames whose reply will not come.

        ``stride`` (B,) is the frame stride of the decision, and stays; ``share_s`` (B,) is the device time that the
        answer may take without delaying the next frames.
        """
        s, table = at.against_rows(), self._plain_table
        period, count = share_s[:, None], stride[:, None].astype(float)
        head = s.slowdown * table.head_s
        in_time = s.age_s + (1.0 + HEAD_RESERVE_FRAC) * head <= s.deadline_s - SLACK_S
        # The score of the skipped frames is proportional to the accuracy of the answer, whichever row gave it.
        score = table.accuracy * (self._on_time(s, head, period) + count - 1.0)
        value = self._per_frame(s, head, period, score, count) + _SUSTAINS * (in_time & (head <= period))
        return np.asarray(self._plain[value.argmax(axis=1)])

    def stretched(self, at: FrameTiming, stride: Ints, rows: Ints, share_s: Floats) -> Ints:
        """(B,) frame stride when ``rows`` (B,) answer instead of the MEC and the next frames are not decided yet.

        A fallback that takes longer than its ``share_s`` (B,) covers the frames that are captured until it ends.
        """
        head = at.slowdown * self._costs.head_s[rows]
        end = np.ceil((at.age_s + head) / at.capture_period_s).astype(np.int64)
        longer = np.minimum(np.maximum(end, stride), max(self._costs.longest_stride, 1))
        return np.where(head > share_s, np.maximum(longer, stride), stride)

    def hopeless(self, left_s: Floats, slowdown: Floats) -> Bools:
        """(B,) frames that not even the fastest row answers in time, with ``left_s`` (B,) until the deadline.

        Computing such an answer would only make the next frames late, too.
        """
        return np.asarray(left_s < (1.0 - HEAD_RESERVE_FRAC) * self._costs.fastest_local_s * slowdown)

    def _on_time(self, s: FrameTiming, head: Floats, period: Floats) -> Floats:
        """(B, L) probability that an answer is in time when the device goes on like this."""
        fresh_s = s.deadline_s - SLACK_S
        left_s = fresh_s - s.age_s
        backlog = ((1.0 + HEAD_RESERVE_FRAC) * head - left_s) / np.maximum(period - head, _LEAST_S)
        meanwhile = np.minimum((1.0 + np.maximum(backlog, 0.0)) * period / (_HORIZON * s.capture_period_s), 1.0)
        later = _likely(fresh_s, head)
        behind = (fresh_s - head) / s.capture_period_s - (self._queue_limit - 1)
        kept = later + (_likely(left_s, head) - later) * meanwhile
        return np.where(head <= period, kept, _share(behind))

    def _per_frame(self, s: FrameTiming, head: Floats, period: Floats, score: Floats, count: Floats) -> Floats:
        """(B, L) utility per frame of answers with the sum ``score`` over ``count`` frames each; all (B, L)."""
        lost = np.maximum(head - period, 0.0) / s.capture_period_s
        return np.asarray((score - self._cost_per_s * head - self._utility.drop_penalty * lost) / (count + lost))


def _likely(left_s: Floats, head_s: Floats) -> Floats:
    """Probability that a head ends within ``left_s``: 1 with the full reserve, 0 with as much too little."""
    return _share(left_s / head_s * (0.5 / HEAD_RESERVE_FRAC) + (0.5 - 0.5 / HEAD_RESERVE_FRAC))


def _share(value: Floats) -> Floats:
    """``value`` clipped to 0..1, in a third of the time of ``np.clip``."""
    return np.asarray(np.minimum(np.maximum(value, 0.0), 1.0))
