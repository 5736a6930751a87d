"""What does each decision cost, before any condition of the moment is applied?

A ``CostTable`` joins a DecisionSpace with what a profile measured. Times are those of the profiled machine at
slowdown 1; a controller scales them with the slowdown it observes.

A row with a frame interval of n answers n frames: its own with what it computes, the n - 1 after it with the newest
answer there is at their capture. So rows are compared by what they are worth, cost and occupy *per frame*.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from controller.records import Decision, Floats, Ints
from controller.space import DecisionSpace

#: Keeps a ratio of scores finite.
_LEAST_SCORE = 1e-3


@dataclass(frozen=True)
class CostTable:
    """Measured costs of the rows of ``space``; every array is (C,) float64 unless said otherwise."""

    space: DecisionSpace
    accuracy: Floats  # expected score on the validation split
    head_s: Floats  # device: resize, head segment, encoding (and the exit head when device-only)
    payload_bytes: Floats  # mean over the validation split; 0 when device-only
    payload_std_bytes: Floats
    mec_s: Floats  # MEC: decoding, tail segment and exit head; 0 when device-only
    #: What one request of another device costs the MEC (load generator and twin alike): the full offload of the
    #: heaviest model, mean over its rows. Derived here, and kept by ``take``, so that a choice of candidates
    #: does not change the neighbours.
    neighbour_mec_s: float = 0.0
    #: (C, lags) expected score of an answer for the frame that comes so many frames later, lags 1, 2, ...; beyond the
    #: last one it stays. None where samples are no stream: then every interval is 1.
    lagged_accuracy: Floats | None = None

    def __post_init__(self) -> None:
        if not self.neighbour_mec_s:
            object.__setattr__(self, "neighbour_mec_s", _heaviest_full_offload_s(self.space, self.mec_s))

    def __len__(self) -> int:
        return len(self.space)

    def take(self, rows: Ints) -> CostTable:
        """The table of a smaller space."""
        return CostTable(
            self.space.take(rows),
            self.accuracy[rows],
            self.head_s[rows],
            self.payload_bytes[rows],
            self.payload_std_bytes[rows],
            self.mec_s[rows],
            self.neighbour_mec_s,
            None if self.lagged_accuracy is None else self.lagged_accuracy[rows],
        )

    @cached_property
    def interval(self) -> Floats:
        """Frames that a row answers, as numbers to calculate with."""
        return self.space.frame_stride.astype(float)

    @cached_property
    def longest_interval(self) -> int:
        """1 where every frame has its own decision."""
        return int(self.space.frame_stride.max())

    def accuracy_at(self, lag: int) -> Floats:
        """Expected score of the row's answer for the frame that comes ``lag`` frames later."""
        if lag == 0 or self.lagged_accuracy is None:
            return self.accuracy
        return np.asarray(self.lagged_accuracy[:, min(lag, self.lagged_accuracy.shape[1]) - 1])

    @cached_property
    def aged_accuracy(self) -> Floats:
        """(lags, C) ``accuracy_at`` lag 0, 1, ...; the last row stands for all later frames too."""
        last = 0 if self.lagged_accuracy is None else self.lagged_accuracy.shape[1]
        return np.stack([self.accuracy_at(lag) for lag in range(last + 1)])

    @cached_property
    def skipped_score(self) -> Floats:
        """Sum of the expected scores of the frames that are not run, if the answer is out before the first of them."""
        lags = range(1, self.longest_interval)
        scores = [self.accuracy_at(lag) * (lag < self.interval) for lag in lags]
        return np.asarray(sum(scores, np.zeros(len(self))))

    @cached_property
    def stale_losses(self) -> tuple[Floats, ...]:
        """What of ``skipped_score`` is lost when the answer comes after the capture of the first, second, ... of them:
        that frame then has the answer before, which is older by one interval."""
        lags = range(1, self.longest_interval)
        return tuple(
            np.where(lag < self.interval, self.accuracy_at(lag) - self._accuracy_before(lag), 0.0) for lag in lags
        )

    @cached_property
    def streaming_worth(self) -> Floats:
        """(lags, C) expected streaming accuracy when each answer is out at the capture so many frames on, 0, 1, ...:
        the mean over the interval, until the next answer replaces it."""
        last = len(self.aged_accuracy)
        aged = self.aged_accuracy[np.minimum(np.arange(last + self.longest_interval), last - 1)]
        ahead = [aged[k : last + k] * (k < self.interval) for k in range(self.longest_interval)]
        return np.asarray(sum(ahead) / self.interval)

    @cached_property
    def worth(self) -> Floats:
        """Expected score per frame over the interval, when every answer comes before the next frame."""
        return (self.accuracy + self.skipped_score) / self.interval

    def _accuracy_before(self, lag: int) -> Floats:
        """Expected score, so many frames after a decision, of the answer to the decision before it."""
        found = self.accuracy.copy()
        for interval in np.unique(self.space.frame_stride).tolist():
            rows = self.space.frame_stride == interval
            found[rows] = self.accuracy_at(lag + interval)[rows]
        return found

    @cached_property
    def local_frontier(self) -> Ints:
        """(rows,) device-only rows that no other device-only row beats in both time and accuracy, fastest first."""
        rows = np.flatnonzero(self.space.device_only)
        rows = rows[np.lexsort((-self.accuracy[rows], self.head_s[rows]))]
        best, kept = -np.inf, []
        for row in rows:
            if self.accuracy[row] > best:
                best = self.accuracy[row]
                kept.append(int(row))
        return np.array(kept, dtype=np.int64)

    @cached_property
    def default_decision(self) -> Decision:
        """The most accurate model's last exit branch at the largest resolution, all of it on the MEC, sent as raw
        pixels. A pinned decision takes from it the fields that it does not name."""
        decisions = self.space.decisions
        raw = [row for row, d in enumerate(decisions) if d.partition_point == 0 and d.payload == "raw"]
        largest = max(decisions[row].resolution_px for row in raw)
        fullest = [row for row in raw if decisions[row].resolution_px == largest]
        return decisions[max(fullest, key=lambda row: (self.accuracy[row], decisions[row].exit_branch))]

    @cached_property
    def fastest_local_s(self) -> float:
        """Device time of the row that a fallback at the last moment runs; 0 when nothing can be answered locally."""
        return float(self.head_s[self.local_frontier[:1]].sum())

    @cached_property
    def rescued_accuracy(self) -> Floats:
        """Expected score when the fallback at the last moment answers instead; 0 for device-only rows, which have
        none."""
        fallback = float(self.accuracy[self.local_frontier[:1]].sum())
        return np.where(self.space.device_only, 0.0, fallback)

    @cached_property
    def rescued_share(self) -> Floats:
        """What then remains of the score of the frames that are not run: the fallback's answer ages as the row's own
        would, so their scores keep the ratio of the two accuracies."""
        ratio = self.rescued_accuracy / np.maximum(self.accuracy, _LEAST_SCORE)
        return np.where(self.space.device_only, 1.0, ratio)


def _heaviest_full_offload_s(space: DecisionSpace, mec_s: Floats) -> float:
    """Largest mean over models of the MEC's time for a full offload; 0 when nothing can be offloaded whole."""
    model = np.array([decision.model for decision in space.decisions])
    models = np.unique(model[space.full_offload])
    return max((float(mec_s[space.full_offload & (model == name)].mean()) for name in models), default=0.0)
