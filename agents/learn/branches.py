"""Estimates the values of candidate decisions by rollouts in the twin.

At one decision point several candidates are tried, each on a copy of the device that meets the same random noise; the
policy decides everything after. The difference between two candidates therefore includes the frames that a candidate
makes late or drops, and what the device learns about the uplink from it. Fitting a policy to such values is policy
iteration by rollouts (Lagoudakis and Parr, 2003).
"""

from __future__ import annotations

import numpy as np

from agents.learn.semi_markov import discounted
from controller.controllers.learned import FrozenPolicy
from controller.costs import CostTable
from controller.features.fast import Features
from controller.records import Bools, Floats, Ints, SystemState
from controller.streaming import newest_answered
from envs.twin.twin import Twin

#: Answers of this many frames before a branch are kept. Older answers score close to 0.
_HISTORY = 32


def branch_values(
    twin: Twin, policy: FrozenPolicy, candidates: Ints, frames: int, gamma: float, streaming_weight: float
) -> Floats:
    """Discounted utility over the next ``frames`` frames of each candidate at each decision point.

    ``candidates``: (B, K) rows of the cost table. Returns (B, K); gamma discounts per frame. On a stream, streaming
    accuracy is added with its weight. Episodes that end sooner can earn less: compare only decision points whose
    ``twin.frames_left`` is at least ``frames``.
    """
    batch, count = candidates.shape
    branches, state = twin.fork(np.repeat(np.arange(batch), count))
    features, is_stream = Features(twin.costs, twin.range.utility), twin.costs.lagged_accuracy is not None
    viewer = _ViewerAnswers(branches, state, frames)
    value, branch = np.zeros(batch * count), np.arange(batch * count)  # branch: numbers of those still running
    elapsed, rows = np.zeros(batch * count, np.int64), candidates.reshape(-1)
    while len(branch):
        state, record = branches.step(rows)
        took, counted = record.frames, np.minimum(record.frames, frames - elapsed)
        value[branch] += gamma**elapsed * discounted(record.reward * counted / took, counted, gamma)
        if is_stream:
            viewer.add(branch, record.frame, record.capture_s + record.latency_s, record.answer_row, record.answered)
        elapsed = elapsed + took
        running = np.flatnonzero((elapsed < frames) & ~record.done)
        if len(running) < len(branch):
            branch, elapsed = branch[running], elapsed[running]
            branches, state = branches.fork(running)
        if len(branch):
            rows = policy.decide(*features.of(state))
    if is_stream:
        value += streaming_weight * viewer.accuracy(twin.costs) @ gamma ** np.arange(frames)
    return value.reshape(batch, count)


class _ViewerAnswers:
    """Owns the answers that a viewer may see in each of N branches, those of earlier frames included."""

    def __init__(self, branches: Twin, state: SystemState, frames: int) -> None:
        self._frames, self._period_s = frames, state.capture_period_s
        self._first = branches.frame - _HISTORY
        self._row = np.zeros((len(self._first), _HISTORY + frames), np.int64)
        self._branch, self._number, self._out = list[Ints](), list[Ints](), list[Floats]()
        everyone = np.arange(len(self._first))
        for out_s, frame, row in branches.answers.transpose(1, 0, 2):
            self.add(everyone, frame.astype(np.int64), out_s, row.astype(np.int64), np.isfinite(out_s))

    def add(self, branch: Ints, frame: Ints, out_s: Floats, row: Ints, answered: Bools) -> None:
        """Add an answer for each given branch where ``answered``; ``out_s`` is when it came. All (n,)."""
        number = np.maximum(frame - self._first[branch], 0)
        known = answered & (number < self._row.shape[1])
        branch, number = branch[known], number[known]
        self._row[branch, number] = row[known]
        self._branch.append(branch)
        self._number.append(number)
        self._out.append(out_s[known] / self._period_s[branch] - self._first[branch] - _HISTORY)

    def accuracy(self, costs: CostTable) -> Floats:
        """(N, frames) expected streaming accuracy at each capture after the first decided frame's."""
        out = np.maximum(np.concatenate(self._out), 0.0)
        shape = (len(self._first), self._frames + 1)
        newest = newest_answered(np.concatenate(self._branch), np.concatenate(self._number), out, shape)[:, 1:]
        lag = _HISTORY + np.arange(1, self._frames + 1) - newest
        row = np.take_along_axis(self._row, np.maximum(newest, 0), axis=1)
        aged = costs.aged_accuracy
        return np.asarray(aged[np.minimum(lag, len(aged) - 1), row] * (newest >= 0))
