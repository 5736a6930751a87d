"""Values of candidate decisions, found by playing each one out in the twin.

From one decision point several candidates are tried, each on a copy of the device with the same noise ahead of it, and
the policy decides what follows. The difference between two candidates then includes the
frames that a candidate makes late or drops, and what it lets the device learn about the uplink. To fit a policy to such
values is policy iteration by rollouts (Lagoudakis and Parr, 2003).
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

#: Frames before a branch whose answers are kept. Older answers score close to nothing.
_BEFORE = 32


def branch_values(
    twin: Twin, policy: FrozenPolicy, candidates: Ints, frames: int, gamma: float, streaming_weight: float
) -> Floats:
    """(B, K) utility over the next ``frames`` frames, discounted per frame, of taking each of ``candidates`` (B, K).

    Streaming accuracy counts with its weight where samples are a stream. Episodes that end sooner have less to
    gain: compare only rows of which ``twin.frames_left`` is at least ``frames``.
    """
    batch, tried = candidates.shape
    branch, state = twin.fork(np.repeat(np.arange(batch), tried))
    features, is_stream = Features(twin.costs, twin.range.utility), twin.costs.lagged_accuracy is not None
    shown = _Shown(branch, state, frames)
    value, place = np.zeros(batch * tried), np.arange(batch * tried)
    passed, rows = np.zeros(batch * tried, np.int64), candidates.reshape(-1)
    while len(place):
        state, record = branch.step(rows)
        took, counted = record.frames, np.minimum(record.frames, frames - passed)
        value[place] += gamma**passed * discounted(record.reward * counted / took, counted, gamma)
        if is_stream:
            shown.add(place, record.frame, record.capture_s + record.latency_s, record.answer_row, record.answered)
        passed = passed + took
        goes_on = np.flatnonzero((passed < frames) & ~record.done)
        if len(goes_on) < len(place):
            place, passed = place[goes_on], passed[goes_on]
            branch, state = branch.fork(goes_on)
        if len(place):
            rows = policy.decide(*features.of(state))
    if is_stream:
        value += streaming_weight * shown.accuracy(twin.costs) @ gamma ** np.arange(frames)
    return value.reshape(batch, tried)


class _Shown:
    """The answers that a viewer may see in each branch (N,), including those of earlier frames."""

    def __init__(self, branch: Twin, state: SystemState, frames: int) -> None:
        self._frames, self._interval_s = frames, state.capture_period_s
        self._first = branch.frame - _BEFORE
        self._row = np.zeros((len(self._first), _BEFORE + frames), np.int64)
        self._place, self._number, self._out = list[Ints](), list[Ints](), list[Floats]()
        place = np.arange(len(self._first))
        for out_s, frame, row in branch.answers.transpose(1, 0, 2):
            self.add(place, frame.astype(np.int64), out_s, row.astype(np.int64), np.isfinite(out_s))

    def add(self, place: Ints, frame: Ints, out_s: Floats, row: Ints, answered: Bools) -> None:
        """Answers of the given branches, if there are any."""
        number = np.maximum(frame - self._first[place], 0)
        known = answered & (number < self._row.shape[1])
        place, number = place[known], number[known]
        self._row[place, number] = row[known]
        self._place.append(place)
        self._number.append(number)
        self._out.append(out_s[known] / self._interval_s[place] - self._first[place] - _BEFORE)

    def accuracy(self, costs: CostTable) -> Floats:
        """(N, frames) expected streaming accuracy at each capture after that of the frame which is decided first."""
        out = np.maximum(np.concatenate(self._out), 0.0)
        shape = (len(self._first), self._frames + 1)
        newest = newest_answered(np.concatenate(self._place), np.concatenate(self._number), out, shape)[:, 1:]
        lag = _BEFORE + np.arange(1, self._frames + 1) - newest
        row = np.take_along_axis(self._row, np.maximum(newest, 0), axis=1)
        aged = costs.aged_accuracy
        return np.asarray(aged[np.minimum(lag, len(aged) - 1), row] * (newest >= 0))
