"""What does a device answer when the MEC cannot be asked? The local row that keeps the pace and is worth most.

The device and its twin ask here whenever a decision cannot be carried out (no link, a full one, one that has gone
silent), whenever a frame is left without its reply, and whenever a controller fails. So they agree.

A row *sustains* the stream if the frame at hand is in time, no frame is dropped meanwhile, and the device is free
again by the next decision when it goes on like this. Among such rows the one with the most utility per frame wins.
The deadline gets a reserve for the noise of head times; the pace needs none, for noise that makes one head longer makes
another one shorter, and a backlog shows in the age of the next frame, which then gets a quicker row.

Where no row sustains, the one with the most utility per frame in the long run wins:

* A head that is longer than its ``period`` loses a frame for each frame interval by which it is longer. A lost frame
  earns nothing, costs the drop penalty, and is one more frame to divide by. The queue is always full then, so a
  frame waits for between ``queue_limit - 1`` and ``queue_limit`` intervals before it starts.
* A head that keeps the pace works off the backlog, frame by frame; until it has, frames are late.
* An answer that comes too late still stands for the frames that are not run.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from controller.costs import CostTable
from controller.predict.expectation import skipped_score
from controller.records import Bools, Floats, Ints, SystemState
from controller.scenario import QUEUE_LIMIT
from controller.utility import Utility

#: A head takes at most so much longer than predicted: 2.6 standard deviations of its noise.
HEAD_RESERVE_FRAC = 0.08
#: Deciding and waking up.
SLACK_S = 0.002
#: Frames over which a backlog is weighed against what comes after it.
_HORIZON = 20.0
#: More than any utility.
_SUSTAINS = 10.0
_LEAST_S = 1e-9
#: A local decision that is worth so much less per frame stands.
_AS_GOOD = 0.005


class Situation(NamedTuple):
    """Of the frame to be answered, (B,) each; times in seconds."""

    age_s: Floats  # since its capture
    deadline_s: Floats
    interval_s: Floats  # between frames
    slowdown: Floats  # of the device, as estimated

    @classmethod
    def of(cls, state: SystemState) -> Situation:
        return cls(state.frame_age_s, state.deadline_s, state.capture_period_s, state.device_slowdown)

    def at(self, where: Any) -> Situation:
        """Some of the rows, or all with one more axis."""
        return Situation(self.age_s[where], self.deadline_s[where], self.interval_s[where], self.slowdown[where])

    def against_rows(self) -> Situation:
        """The same as (B, 1)."""
        return self.at(np.s_[:, None])


class Alone:
    """Knows a device's own answers; owns nothing that changes."""

    def __init__(self, costs: CostTable, utility: Utility, queue_limit: int = QUEUE_LIMIT) -> None:
        self._costs, self._utility, self._queue_limit = costs, utility, queue_limit
        self._rows, self._plain = np.flatnonzero(costs.space.device_only), costs.local_frontier
        self._place = np.full(len(costs), -1)  # of a row among the local ones
        self._place[self._rows] = np.arange(len(self._rows))
        self._cost_per_s = float(utility.energy_weight_per_j * utility.energy_j(1.0, 0.0))  # utility of busy time
        if self.possible:
            self._fastest_s = costs.head_s[self.fastest]
            self._table, self._plain_table = costs.take(self._rows), costs.take(self._plain)

    @property
    def possible(self) -> bool:
        """Whether any row runs on the device alone; without, nothing below may be asked."""
        return len(self._rows) > 0

    @property
    def fastest(self) -> int:
        """The row of a fallback at the last moment."""
        return int(self._plain[0])

    def decide(self, at: Situation) -> Ints:
        """(B,) the row to take where no decision was made."""
        return np.asarray(self._rows[self._value(at).argmax(axis=1)])

    def instead(self, at: Situation, rows: Ints) -> Ints:
        """(B,) what to carry out where ``rows`` (B,) were decided and the MEC cannot be asked.

        A local decision stands while it is nearly as good as any.
        """
        value, place = self._value(at), self._place.take(rows)
        batch, best = np.arange(len(rows)), value.argmax(axis=1)
        stands = (place >= 0) & (value[batch, place] >= value[batch, best] - _AS_GOOD)
        return np.where(stands, rows, self._rows.take(best))

    def _value(self, at: Situation) -> Floats:
        """(B, L) how good each local row is: what sustains before all others."""
        s, table = at.against_rows(), self._table
        period, head = s.interval_s * table.interval, s.slowdown * table.head_s
        room_s = np.minimum(s.deadline_s - SLACK_S, period + self._queue_limit * s.interval_s)
        sustains = (head <= period) & (s.age_s + (1.0 + HEAD_RESERVE_FRAC) * head <= room_s)
        skipped = self._skipped(s.age_s + head, s.interval_s)
        value = (table.accuracy + skipped - self._cost_per_s * head) / table.interval + _SUSTAINS * sustains
        none = np.flatnonzero(~np.logical_or.reduce(sustains, axis=1))
        if len(none):  # what follows costs several times as much
            s, head, period = s.at(none), head[none], period[none]
            age = np.where(head > period, (self._queue_limit - 0.5) * s.interval_s, s.age_s)
            score = table.accuracy * self._on_time(s, head, period) + self._skipped(age + head, s.interval_s)
            value[none] = self._per_frame(s, head, period, score, table.interval)
        return np.asarray(value)

    def _skipped(self, answer_s: Floats, interval_s: Floats) -> Floats | float:
        """(B, L) scores of the frames that are not run."""
        return skipped_score(self._table, answer_s / interval_s) if self._table.longest_interval > 1 else 0.0

    def fallback(self, at: Situation, interval: Ints, share_s: Floats) -> Ints:
        """(B,) the row that answers a decided frame whose reply will not come.

        ``interval`` (B,) is of its decision and stays; ``share_s`` (B,) is the device time that the answer may take
        without holding up the next frames.
        """
        s, table = at.against_rows(), self._plain_table
        period, count = share_s[:, None], interval[:, None].astype(float)
        head = s.slowdown * table.head_s
        in_time = s.age_s + (1.0 + HEAD_RESERVE_FRAC) * head <= s.deadline_s - SLACK_S
        # An answer ages alike, whoever gave it.
        score = table.accuracy * (self._on_time(s, head, period) + count - 1.0)
        value = self._per_frame(s, head, period, score, count) + _SUSTAINS * (in_time & (head <= period))
        return np.asarray(self._plain[value.argmax(axis=1)])

    def stretched(self, at: Situation, interval: Ints, rows: Ints, share_s: Floats) -> Ints:
        """(B,) the frame interval when ``rows`` answer in the MEC's place, where none of the next frames was decided.

        A fallback that takes longer than its ``share_s`` covers the frames that are captured until it ends.
        """
        head = at.slowdown * self._costs.head_s[rows]
        end = np.ceil((at.age_s + head) / at.interval_s).astype(np.int64)
        longer = np.minimum(np.maximum(end, interval), max(self._costs.longest_interval, 1))
        return np.where(head > share_s, np.maximum(longer, interval), interval)

    def hopeless(self, left_s: Floats, slowdown: Floats) -> Bools:
        """(B,) where not even the fastest row ends in what is left of the deadline. To compute it all the same would
        only make the next frames late, too."""
        return np.asarray(left_s < (1.0 - HEAD_RESERVE_FRAC) * self._fastest_s * slowdown)

    def _on_time(self, s: Situation, head: Floats, period: Floats) -> Floats:
        """(B, L) how likely an answer is in time when the device goes on like this."""
        fresh_s = s.deadline_s - SLACK_S
        left_s = fresh_s - s.age_s
        backlog = ((1.0 + HEAD_RESERVE_FRAC) * head - left_s) / np.maximum(period - head, _LEAST_S)
        meanwhile = np.minimum((1.0 + np.maximum(backlog, 0.0)) * period / (_HORIZON * s.interval_s), 1.0)
        later = _likely(fresh_s, head)
        behind = (fresh_s - head) / s.interval_s - (self._queue_limit - 1)
        kept = later + (_likely(left_s, head) - later) * meanwhile
        return np.where(head <= period, kept, _share(behind))

    def _per_frame(self, s: Situation, head: Floats, period: Floats, score: Floats, count: Floats) -> Floats:
        """(B, L) utility per frame of answers with these scores for ``count`` frames each."""
        lost = np.maximum(head - period, 0.0) / s.interval_s
        return np.asarray((score - self._cost_per_s * head - self._utility.drop_penalty * lost) / (count + lost))


def _likely(left_s: Floats, head_s: Floats) -> Floats:
    """How likely a head ends within ``left_s``: surely with its reserve, never that much beyond."""
    return _share(left_s / head_s * (0.5 / HEAD_RESERVE_FRAC) + (0.5 - 0.5 / HEAD_RESERVE_FRAC))


def _share(value: Floats) -> Floats:
    """Between 0 and 1; in a third of the time of ``np.clip``."""
    return np.asarray(np.minimum(np.maximum(value, 0.0), 1.0))
