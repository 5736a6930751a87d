"""The rule for local answers: which device-only row answers a frame when the MEC cannot be asked.

Device and twin share this rule, so they agree: the device calls these functions as they stand, the twin compiles them
(``envs.twin.compiled``). The rule applies when a decision cannot be carried out (the link is down,
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

One frame, one row: the rule is written in plain numbers. ``FallbackTable`` holds the columns that it needs.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from controller.costs import CostTable
from controller.records import Floats, Ints, SystemState
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
#: Factor and summand that turn left time over head time into a probability.
_SLOPE = 0.5 / HEAD_RESERVE_FRAC
_OFFSET = 0.5 - 0.5 / HEAD_RESERVE_FRAC

#: A column of a table: an array for compiled code, a list for plain Python, which reads a list faster.
Numbers = Floats | Sequence[float]
Rows = Ints | Sequence[int]


class FrameTiming(NamedTuple):
    """The frame to be answered; times in seconds."""

    age_s: float  # since its capture
    deadline_s: float
    capture_period_s: float
    slowdown: float  # estimate of the device's slowdown

    @classmethod
    def of(cls, state: SystemState) -> FrameTiming:
        """The frame that a state of batch 1 is about."""
        fields = (state.frame_age_s, state.deadline_s, state.capture_period_s, state.device_slowdown)
        return cls(*(float(field[0]) for field in fields))


class FallbackTable(NamedTuple):
    """What the rule knows of a cost table of C rows: L plain device-only rows, P of them on the local frontier."""

    row: Rows  # (L,) in the cost table
    place: Rows  # (C,) of each row among the L, a gated or cropped one's that of its plain row; -1 for offloads
    head_s: Numbers  # (L,)
    accuracy: Numbers  # (L,)
    stride: Numbers  # (L,)
    skipped_score: Numbers  # (L,) CostTable.skipped_score
    stale_losses: Sequence[Numbers] | Floats  # (K, L) CostTable.stale_losses
    frontier_row: Rows  # (P,) in the cost table, fastest first
    frontier_head_s: Numbers  # (P,)
    frontier_accuracy: Numbers  # (P,)
    every_head_s: Numbers  # (C,)
    every_accuracy: Numbers  # (C,) of frames that ask the MEC
    fastest_s: float
    longest_stride: int
    queue_limit: int
    cost_per_s: float  # utility of a second of device time
    drop_penalty: float


def fallback_table(costs: CostTable, utility: Utility, queue_limit: int) -> FallbackTable:
    """The table as arrays. It may have no device-only row; then no function of the rule may be called."""
    local, frontier = np.flatnonzero(costs.space.device_only & costs.space.plain), costs.local_frontier
    table = costs.take(local) if len(local) else costs
    return FallbackTable(
        row=local,
        place=_places(costs, local),
        head_s=table.head_s,
        accuracy=table.accuracy,
        stride=table.stride,
        skipped_score=table.skipped_score,
        stale_losses=np.array(table.stale_losses).reshape(-1, len(table)),
        frontier_row=frontier,
        frontier_head_s=costs.head_s[frontier],
        frontier_accuracy=costs.accuracy[frontier],
        every_head_s=costs.head_s,
        every_accuracy=costs.paths.accuracy[: len(costs)],
        fastest_s=costs.fastest_local_s,
        longest_stride=costs.longest_stride,
        queue_limit=queue_limit,
        cost_per_s=float(utility.energy_weight_per_j * utility.energy_j(1.0, 0.0)),
        drop_penalty=float(utility.drop_penalty),
    )


def _places(costs: CostTable, local: Ints) -> Ints:
    """(C,) place of each row among the ``local`` ones, -1 for all others. A gated or cropped device-only row has the
    place of its plain one: the rule keeps to rows that are sure to end in time, but the decision may stand."""
    place = np.full(len(costs), -1)
    place[local] = np.arange(len(local))
    for row in np.flatnonzero(costs.space.device_only & ~costs.space.plain):
        plain = costs.space.decisions[row].ungated.whole
        place[row] = place[costs.space.index(plain)] if plain in costs.space.decisions else -1
    return place


class LocalFallback:
    """The rule on a device: plain Python on lists. Stateless."""

    def __init__(self, costs: CostTable, utility: Utility, queue_limit: int = QUEUE_LIMIT) -> None:
        columns = fallback_table(costs, utility, queue_limit)
        self.table = FallbackTable._make(c.tolist() if isinstance(c, np.ndarray) else c for c in columns)

    @property
    def possible(self) -> bool:
        """Whether any row is device-only. If not, no method below may be called."""
        return len(self.table.row) > 0

    @property
    def fastest(self) -> int:
        """The fastest device-only row: the one of a fallback at the last moment."""
        return self.table.frontier_row[0]

    def decide(self, at: FrameTiming) -> int:
        """The row for a frame without a decision."""
        return self.table.row[best_local(self.table, at, is_overloaded(self.table, at))]

    def instead(self, at: FrameTiming, row: int) -> int:
        """The row to carry out where ``row`` was decided and the MEC cannot be asked."""
        return row_instead(self.table, at, row)

    def fallback(self, at: FrameTiming, stride: int, share_s: float) -> int:
        """The row that answers a decided frame whose reply will not come; see ``fallback_row``."""
        return fallback_row(self.table, at, stride, share_s)

    def stretched(self, at: FrameTiming, stride: int, row: int, share_s: float) -> int:
        """The frame stride when ``row`` answers instead of the MEC; see ``stretched_stride``."""
        return stretched_stride(self.table, at, stride, row, share_s)

    def hopeless(self, left_s: float, slowdown: float) -> bool:
        """Whether not even the fastest row answers in time; see ``is_hopeless``."""
        return is_hopeless(self.table, left_s, slowdown)


def row_instead(t: FallbackTable, at: FrameTiming, row: int) -> int:
    """The row to carry out where ``row`` was decided and the MEC cannot be asked.

    A device-only decision stands while it is nearly as good as the best.
    """
    overloaded = is_overloaded(t, at)
    best, decided = best_local(t, at, overloaded), t.place[row]
    if decided >= 0 and local_value(t, at, decided, overloaded) >= local_value(t, at, best, overloaded) - _AS_GOOD:
        return row
    return t.row[best]


def best_local(t: FallbackTable, at: FrameTiming, overloaded: bool) -> int:
    """Index of the device-only row with the most value; the first of equals."""
    best, most = 0, -math.inf
    for i in range(len(t.row)):
        value = local_value(t, at, i, overloaded)
        if value > most:
            best, most = i, value
    return best


def is_overloaded(t: FallbackTable, at: FrameTiming) -> bool:
    """Whether no device-only row sustains the stream."""
    for i in range(len(t.row)):  # noqa: SIM110 - compiled code has no generators
        if sustains(t, at, i):
            return False
    return True


def local_value(t: FallbackTable, at: FrameTiming, i: int, overloaded: bool) -> float:
    """Value of device-only row ``i``; rows that sustain the stream come before all others."""
    head = at.slowdown * t.head_s[i]
    if overloaded:
        return _long_run_value(t, at, i, head, at.capture_period_s * t.stride[i])
    skipped = _skipped_score(t, i, (at.age_s + head) / at.capture_period_s)
    value = (t.accuracy[i] + skipped - t.cost_per_s * head) / t.stride[i]
    return value + _SUSTAINS if sustains(t, at, i) else value


def sustains(t: FallbackTable, at: FrameTiming, i: int) -> bool:
    """Whether device-only row ``i`` is in time, loses no waiting frame and keeps up with the camera."""
    period, head = at.capture_period_s * t.stride[i], at.slowdown * t.head_s[i]
    room_s = min(at.deadline_s - SLACK_S, period + t.queue_limit * at.capture_period_s)
    return head <= period and at.age_s + (1.0 + HEAD_RESERVE_FRAC) * head <= room_s


def _long_run_value(t: FallbackTable, at: FrameTiming, i: int, head: float, period: float) -> float:
    """Utility per frame of device-only row ``i`` in the long run, lost frames included."""
    age = (t.queue_limit - 0.5) * at.capture_period_s if head > period else at.age_s
    skipped = _skipped_score(t, i, (age + head) / at.capture_period_s)
    score = t.accuracy[i] * _on_time(t, at, head, period) + skipped
    return _per_frame(t, at, head, period, score, t.stride[i])


def _skipped_score(t: FallbackTable, i: int, answer_frames: float) -> float:
    """Sum of the scores of the skipped frames, as ``controller.predict.expectation.score_of_skipped``."""
    score = t.skipped_score[i]
    for place in range(len(t.stale_losses)):
        if answer_frames > place + 1:
            score -= t.stale_losses[place][i]
    return score


def fallback_row(t: FallbackTable, at: FrameTiming, stride: int, share_s: float) -> int:
    """The row that answers a decided frame whose reply will not come.

    ``stride`` is the frame stride of the decision, and stays; ``share_s`` is the device time that the answer may take
    without delaying the next frames.
    """
    best, most = 0, -math.inf
    for i in range(len(t.frontier_row)):
        value = _fallback_value(t, at, i, float(stride), share_s)
        if value > most:
            best, most = i, value
    return t.frontier_row[best]


def _fallback_value(t: FallbackTable, at: FrameTiming, i: int, count: float, share_s: float) -> float:
    """Utility per frame of row ``i`` of the frontier as the answer of ``count`` frames."""
    head = at.slowdown * t.frontier_head_s[i]
    in_time = at.age_s + (1.0 + HEAD_RESERVE_FRAC) * head <= at.deadline_s - SLACK_S
    # The score of the skipped frames is proportional to the accuracy of the answer, whichever row gave it.
    score = t.frontier_accuracy[i] * (_on_time(t, at, head, share_s) + count - 1.0)
    value = _per_frame(t, at, head, share_s, score, count)
    return value + _SUSTAINS if in_time and head <= share_s else value


def stretched_stride(t: FallbackTable, at: FrameTiming, stride: int, row: int, share_s: float) -> int:
    """The frame stride when ``row`` answers instead of the MEC and the next frames are not decided yet.

    A fallback that takes longer than its ``share_s`` covers the frames that are captured until it ends.
    """
    head = at.slowdown * t.every_head_s[row]
    if head <= share_s:
        return stride
    end = math.ceil((at.age_s + head) / at.capture_period_s)
    return max(min(end, t.longest_stride), stride)


def is_hopeless(t: FallbackTable, left_s: float, slowdown: float) -> bool:
    """Whether not even the fastest row answers a frame in time, with ``left_s`` until the deadline.

    Computing such an answer would only make the next frames late, too.
    """
    return left_s < (1.0 - HEAD_RESERVE_FRAC) * t.fastest_s * slowdown


def _on_time(t: FallbackTable, at: FrameTiming, head: float, period: float) -> float:
    """Probability that an answer is in time when the device goes on like this."""
    fresh_s = at.deadline_s - SLACK_S
    if head > period:
        return _share((fresh_s - head) / at.capture_period_s - (t.queue_limit - 1))
    left_s = fresh_s - at.age_s
    backlog = ((1.0 + HEAD_RESERVE_FRAC) * head - left_s) / max(period - head, _LEAST_S)
    meanwhile = min((1.0 + max(backlog, 0.0)) * period / (_HORIZON * at.capture_period_s), 1.0)
    later = _likely(fresh_s, head)
    return later + (_likely(left_s, head) - later) * meanwhile


def _per_frame(t: FallbackTable, at: FrameTiming, head: float, period: float, score: float, count: float) -> float:
    """Utility per frame of answers with the sum ``score`` over ``count`` frames each."""
    lost = max(head - period, 0.0) / at.capture_period_s
    return (score - t.cost_per_s * head - t.drop_penalty * lost) / (count + lost)


def _likely(left_s: float, head_s: float) -> float:
    """Probability that a head ends within ``left_s``: 1 with the full reserve, 0 with as much too little."""
    return _share(left_s / head_s * _SLOPE + _OFFSET)


def _share(value: float) -> float:
    """``value`` clipped to 0..1."""
    return min(max(value, 0.0), 1.0)
