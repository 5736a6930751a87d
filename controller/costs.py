"""The cost table: measured accuracy, times and bytes of every decision.

A ``CostTable`` joins a DecisionSpace with the measurements of a profile. Times are those of the profiled machine at
slowdown 1; a controller multiplies them with the slowdown that it observes.

Of a gated row, the columns of times and bytes are those of a frame that no exit on the way answers, so that nothing
that is planned with them comes too late; ``controller.gates`` has the others.

A row with a frame stride of n answers n frames: it computes its own, and the n - 1 frames after it get the newest
answer that is out at their capture. So accuracy, cost and device time of rows are compared *per frame*.

``payload_bytes`` is what a row sends in the steady state: where its payloads refer to earlier ones, with a reference as
old as its frame stride. ``payload_bytes_by_age`` and the fields beside it say what it sends otherwise; the rules are in
``controller.references``.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from controller.crops import WHOLE, Crops, at_column, joined_paths
from controller.gates import Gates
from controller.packets import Bytes, ping_bytes, wire_bytes
from controller.records import Bools, Decision, Floats, Ints
from controller.references import NO_STREAM, ReferenceCosts
from controller.space import DecisionSpace

#: Keeps a ratio of scores finite.
_LEAST_SCORE = 1e-3


@dataclass(frozen=True)
class CostTable:
    """Measured costs of the rows of ``space``; every array is (C,) float64 unless said otherwise."""

    space: DecisionSpace
    accuracy: Floats  # expected score on the validation split
    head_s: Floats  # device: resize, head segment, encoding (and the exit branch when device-only)
    payload_bytes: Floats  # mean over the validation split, in the steady state; 0 when device-only
    payload_std_bytes: Floats
    mec_s: Floats  # MEC: decoding, tail segment and exit branch; 0 when device-only
    #: MEC time of one request of another device, for load generator and twin alike: the full offload of the model
    #: for which that takes longest, mean over its rows. Derived here and kept by ``take``, so that a choice of
    #: candidates does not change the load of other devices.
    neighbour_mec_s: float = 0.0
    #: (C, lags) expected score of an answer against the truth of the frame 1, 2, ... frames later; it stays the same
    #: beyond the last lag. None where samples are not a stream: then every frame stride is 1.
    lagged_accuracy: Floats | None = None
    references: ReferenceCosts | None = None  # None where no payload refers to another one
    #: What becomes of frames of gated rows. ``accuracy`` then is the mean over all frames, but times and bytes of a
    #: gated row are those of a frame that no exit on the way answers. None where no row is gated.
    gates: Gates | None = None
    #: What cropped rows are worth by the age of the answer that they refer to; ``accuracy`` then is that of the steady
    #: state. None where no row is cropped, or where that was not measured.
    crops: Crops | None = None
    sealed: bool = False  # messages are encrypted, which makes each of them larger

    def __post_init__(self) -> None:
        if not self.neighbour_mec_s:
            object.__setattr__(self, "neighbour_mec_s", _heaviest_full_offload_s(self))

    def __len__(self) -> int:
        return len(self.space)

    def take(self, rows: Ints) -> CostTable:
        """The table of the given rows, in the given order."""
        return self._copied(rows, self.space.take(rows), self.head_s[rows])

    def extended(self, rows: Ints, decisions: tuple[Decision, ...], head_s: Floats) -> CostTable:
        """The table, and behind it a copy of each of these rows (n,) with its own decision and device time."""
        every, own = np.concatenate((np.arange(len(self)), rows)).astype(np.int64), self.space
        space = DecisionSpace(own.decisions + decisions, own.stages_to_exit[every], own.variant[every])
        return self._copied(every, space, np.concatenate((self.head_s, head_s)))

    def _copied(self, rows: Ints, space: DecisionSpace, head_s: Floats) -> CostTable:
        return CostTable(
            space,
            self.accuracy[rows],
            head_s,
            self.payload_bytes[rows],
            self.payload_std_bytes[rows],
            self.mec_s[rows],
            self.neighbour_mec_s,
            None if self.lagged_accuracy is None else self.lagged_accuracy[rows],
            None if self.references is None else self.references.take(rows),
            None if self.gates is None else self.gates.take(rows),
            None if self.crops is None else self.crops.take(rows),
            self.sealed,
        )

    @property
    def paths(self) -> CostTable:
        """(C + P) what may become of a frame: each row to its end, then each exit on the way of gated rows."""
        return self if self.gates is None else self.gates.paths

    @cached_property
    def every_path(self) -> CostTable:
        """``paths``, and behind them what may become of a cropped row: one path for each age (``controller.crops``)."""
        return self.paths if self.crops is None else joined_paths(self.paths, self.crops.paths)

    @cached_property
    def at_whole_age(self) -> tuple[CostTable, ...]:
        """The table at each age of the answer that cropped rows refer to; the last one where there is none."""
        assert self.crops is not None, "a table with cropped rows"
        return tuple(at_column(self, column) for column in (*range(len(self.crops.ages)), WHOLE))

    def mean(self, values: Floats) -> Floats:
        """(..., C) expectations of the rows from (..., C + P) values of ``paths``."""
        return values if self.gates is None else self.gates.mean(values)

    def path(self, row: int, early_exit: int | None) -> int:
        """Of ``paths``, that of a frame of the row which an exit on the way has answered (None: none has)."""
        return row if self.gates is None else self.gates.path(row, early_exit)

    @cached_property
    def neighbour_rows(self) -> Bools:
        """(C,) full offloads that other devices may send: one fixed payload, which stands alone."""
        return np.asarray(self.space.full_offload & (self.stream == NO_STREAM))

    @cached_property
    def ages(self) -> Ints:
        """(A,) recorded ages of a reference in frames, ascending; empty where no payload refers to another one."""
        return np.zeros(0, np.int64) if self.references is None else self.references.ages

    @cached_property
    def payload_bytes_by_age(self) -> Floats:
        """(C, A + 1) mean bytes of payloads that stand alone, then with a reference of each of ``ages``."""
        return self.payload_bytes[:, None] if self.references is None else self.references.payload_bytes

    @cached_property
    def stream(self) -> Ints:
        """(C,) number of the stream that a row sends in, from 0; -1 where its payloads always stand alone."""
        return np.full(len(self), NO_STREAM) if self.references is None else self.references.stream

    @cached_property
    def chained(self) -> Bools:
        """(C,) rows whose payloads refer to the one sent just before, not to one that was answered."""
        return np.zeros(len(self), np.bool_) if self.references is None else self.references.chained

    @cached_property
    def streams(self) -> int:
        """Number of streams: ``stream`` is less."""
        return 0 if self.references is None else self.references.streams

    @cached_property
    def column_of_age(self) -> Ints:
        """The column of ``payload_bytes_by_age`` for the ages 0, 1, ...; the last one holds for all older ones."""
        return np.zeros(1, np.int64) if self.references is None else self.references.column_of_age

    @cached_property
    def whole_row(self) -> Ints:
        """(C,) the row that runs the whole picture in place of a part; the row itself where it has no crop.

        UsageError where a table has a cropped row without that.
        """
        decisions = self.space.decisions
        return np.array([self.space.index(d.whole) if d.crop else row for row, d in enumerate(decisions)], np.int64)

    @cached_property
    def stride(self) -> Floats:
        """(C,) frame stride as float64: the number of frames that a row answers."""
        return self.space.frame_stride.astype(float)

    @cached_property
    def uplink_bytes(self) -> Floats:
        """(C,) what the uplink carries for the row's mean payload in the steady state: the whole message
        (``controller.packets``); 0 when device-only."""
        return np.where(self.space.device_only, 0.0, self.request_bytes(self.payload_bytes))

    def request_bytes(self, payload_bytes: Bytes) -> Bytes:
        """What the uplink carries for a request with this payload."""
        return wire_bytes(payload_bytes, self.sealed)

    def ping_bytes(self, padding_bytes: Bytes) -> Bytes:
        """What the uplink carries for a ping with this padding."""
        return ping_bytes(padding_bytes, self.sealed)

    def uplink_bytes_at(self, reference_age: Ints | None) -> Floats:
        """What the uplink carries for the row's mean payload now: (B, C) for ages of references (B, streams) as in
        ``SystemState.reference_age``; ``uplink_bytes`` (C,) where they are None."""
        if reference_age is None or self.references is None:
            return self.uplink_bytes
        column = self.column_of_age.take(reference_age, mode="clip")
        # Rows without a stream take the column of the last one: all of their columns are equal.
        return self._flat_uplink_bytes.take(column[:, self.stream] + self._row_start)

    @cached_property
    def uplink_bytes_by_age(self) -> Floats:
        """(C, A + 1) ``uplink_bytes`` for each column of ``payload_bytes_by_age``."""
        return np.where(self.space.device_only[:, None], 0.0, self.request_bytes(self.payload_bytes_by_age))

    @cached_property
    def _flat_uplink_bytes(self) -> Floats:
        return self.uplink_bytes_by_age.ravel()

    @cached_property
    def _row_start(self) -> Ints:
        """(C,) where each row starts in ``_flat_uplink_bytes``."""
        return np.arange(len(self)) * (len(self.ages) + 1)

    @cached_property
    def longest_stride(self) -> int:
        """Longest frame stride of the table; 1 where every frame has its own decision."""
        return int(self.space.frame_stride.max())

    def accuracy_at(self, lag: int) -> Floats:
        """(C,) expected score of the row's answer against the truth of the frame ``lag`` frames later."""
        if lag == 0 or self.lagged_accuracy is None:
            return self.accuracy
        return np.asarray(self.lagged_accuracy[:, min(lag, self.lagged_accuracy.shape[1]) - 1])

    @cached_property
    def aged_accuracy(self) -> Floats:
        """(lags, C) ``accuracy_at`` lag 0, 1, ...; the last row holds for all later frames."""
        last = 0 if self.lagged_accuracy is None else self.lagged_accuracy.shape[1]
        return np.stack([self.accuracy_at(lag) for lag in range(last + 1)])

    @cached_property
    def skipped_score(self) -> Floats:
        """(C,) sum of the expected scores of the skipped frames, if the answer is out before the first of them."""
        lags = range(1, self.longest_stride)
        scores = [self.accuracy_at(lag) * (lag < self.stride) for lag in lags]
        return np.asarray(sum(scores, np.zeros(len(self))))

    @cached_property
    def stale_losses(self) -> tuple[Floats, ...]:
        """(C,) each: the part of ``skipped_score`` that is lost when the answer comes after the capture of the first,
        second, ... skipped frame. That frame then has the previous answer, which is older by one stride."""
        lags = range(1, self.longest_stride)
        return tuple(
            np.where(lag < self.stride, self.accuracy_at(lag) - self._accuracy_before(lag), 0.0) for lag in lags
        )

    @cached_property
    def streaming_accuracy(self) -> Floats:
        """(lags, C) expected streaming accuracy when each answer is out at the capture 0, 1, ... frames later: the mean
        over one stride, until the next answer replaces it."""
        last = len(self.aged_accuracy)
        aged = self.aged_accuracy[np.minimum(np.arange(last + self.longest_stride), last - 1)]
        ahead = [aged[k : last + k] * (k < self.stride) for k in range(self.longest_stride)]
        return np.asarray(sum(ahead) / self.stride)

    @cached_property
    def accuracy_per_frame(self) -> Floats:
        """(C,) expected score per frame over one stride, when every answer comes before the next frame."""
        return (self.accuracy + self.skipped_score) / self.stride

    def _accuracy_before(self, lag: int) -> Floats:
        """(C,) expected score, ``lag`` frames after a decision, of the answer to the previous decision."""
        found = self.accuracy.copy()
        for stride in np.unique(self.space.frame_stride).tolist():
            rows = self.space.frame_stride == stride
            found[rows] = self.accuracy_at(lag + stride)[rows]
        return found

    @cached_property
    def local_frontier(self) -> Ints:
        """(rows,) device-only rows that no other device-only row beats in both time and accuracy, fastest first. Gated
        ones are not among them, because a fallback must be sure to end in time, nor cropped ones, which need an earlier
        answer."""
        rows = np.flatnonzero(self.space.device_only & self.space.plain)
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
        """(C,) expected score when the fallback at the last moment answers instead; 0 for device-only rows, which
        have no fallback."""
        fallback = float(self.accuracy[self.local_frontier[:1]].sum())
        return np.where(self.space.device_only, 0.0, fallback)

    @cached_property
    def rescued_share(self) -> Floats:
        """(C,) factor on the score of the skipped frames when the fallback answers instead; 1 for device-only rows.

        The fallback's answer is taken to age as the row's own would, so the scores have the ratio of the accuracies.
        """
        ratio = self.rescued_accuracy / np.maximum(self.accuracy, _LEAST_SCORE)
        return np.where(self.space.device_only, 1.0, ratio)


def _heaviest_full_offload_s(costs: CostTable) -> float:
    """Largest mean, over models, of the MEC's time for a full offload; 0 when no row is one."""
    model = np.array([decision.model for decision in costs.space.decisions])
    rows = costs.neighbour_rows
    return max((float(costs.mec_s[rows & (model == name)].mean()) for name in np.unique(model[rows])), default=0.0)
