"""Values of candidate decisions by rollouts, in a twin whose shortcuts are Python objects.

``agents.learn.branches`` plays the same rollouts compiled, which shortcuts are not. Here all branches of all states are
devices of one fork of the twin, which is stepped as a whole; a test compares the two. It takes about ten times as long.
"""

from __future__ import annotations

import numpy as np

from controller.controllers.learned import FrozenPolicy
from controller.features.fast import Features
from controller.records import Floats, Ints
from controller.streaming import TICK
from envs.twin.record import StepRecord
from envs.twin.twin import Twin


def forked_values(
    twin: Twin, policy: FrozenPolicy, candidates: Ints, frames: int, gamma: float, streaming_weight: float
) -> Floats:
    """As ``agents.learn.branches.branch_values``: (B, K) from candidates (B, K)."""
    batch, count = candidates.shape
    fork, state = twin.fork(np.repeat(np.arange(batch), count))
    features = Features(twin.costs, twin.range.utility)
    branches = _Branches(fork, state.capture_period_s, frames, gamma)
    rows: Ints = candidates.ravel()
    while len(rows):
        state, record = fork.step(rows)
        going_on = branches.earn(record)
        if len(going_on) < len(rows):
            fork, state = fork.fork(going_on)
        rows = policy.decide(*features.of(state)) if len(going_on) else going_on
    value = branches.value
    if twin.costs.lagged_accuracy is not None:
        value = value + streaming_weight * branches.streaming_value(np.asarray(twin.costs.every_path.aged_accuracy))
    return np.asarray(value.reshape(batch, count))


class _Branches:
    """N branches that begin at the present frames of the devices of a fork. Owns what they have earned."""

    def __init__(self, fork: Twin, period_s: Floats, frames: int, gamma: float) -> None:
        self._begin, self._period_s, self._frames = fork.frame, period_s, frames
        self._discount = gamma ** np.arange(float(frames))
        self._until = np.concatenate(([0.0], self._discount.cumsum()))  # (frames + 1,) sum of the discounts before
        self.value = np.zeros(fork.batch)
        self._elapsed = np.zeros(fork.batch, np.int64)
        self._running = np.arange(fork.batch)  # the branches that the devices of the fork play
        #: The newest answer that is out since each capture, that of the branching first, or -1.
        self._newest_frame = np.full((fork.batch, frames + 1), -1)
        self._newest_row = np.zeros((fork.batch, frames + 1), np.int64)
        for answer in fork.answers.T:
            self._show(answer["frame"], answer["row"], answer["out_s"])

    def earn(self, record: StepRecord) -> Ints:
        """Count what a step of the running branches earned, spread evenly over its frames. Returns the devices whose
        branches go on."""
        answered = np.where(record.silent, np.inf, record.settled_s)
        self._show(record.frame, record.answer_row, answered)
        took, elapsed = 1 + record.reused_frames + record.dropped, self._elapsed[self._running]
        end = np.minimum(elapsed + took, self._frames)
        self.value[self._running] += record.reward / took * (self._until[end] - self._until[elapsed])
        going_on = np.flatnonzero((end < self._frames) & ~record.done)
        self._elapsed[self._running] = end
        self._running = self._running[going_on]
        return going_on

    def _show(self, frame: Ints, row: Ints, out_s: Floats) -> None:
        """Note from which capture on a viewer sees the answers of the running branches, unless newer ones are out."""
        branch = self._running
        captures = np.maximum(out_s / self._period_s[branch] - self._begin[branch], 0.0)
        place = np.ceil(np.minimum(captures, self._frames + 1.0) - TICK).astype(np.int64)
        seen = np.flatnonzero(place <= self._frames)
        seen = seen[frame[seen] > self._newest_frame[branch[seen], place[seen]]]
        self._newest_frame[branch[seen], place[seen]] = frame[seen]
        self._newest_row[branch[seen], place[seen]] = row[seen]

    def streaming_value(self, aged_accuracy: Floats) -> Floats:
        """(N,) discounted expected streaming accuracy at each capture after that of the branching; ``aged_accuracy``:
        (lags, C + P)."""
        frame, row, value = self._newest_frame[:, 0], self._newest_row[:, 0], np.zeros(len(self._begin))
        for place in range(1, self._frames + 1):
            newer = self._newest_frame[:, place] > frame
            frame = np.where(newer, self._newest_frame[:, place], frame)
            row = np.where(newer, self._newest_row[:, place], row)
            lag = np.clip(self._begin + place - frame, 0, len(aged_accuracy) - 1)
            value += self._discount[place - 1] * np.where(frame >= 0, aged_accuracy[lag, row], 0.0)
        return value
