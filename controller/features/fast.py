"""The features in few array operations, for the loop of the device.

``controller.features.scalar`` is the readable form, and a test compares the two. This one exists for its speed. A
device computes the features of one state before every decision: 38 us for the 18 candidates of garments and 58 us for
the 41 of campus; the policy takes 9 us more (``benchmarks.bench_decide``). The features of a batch are compiled where a
twin is (``envs.twin.features``); elsewhere they are computed state by state.

Every feature but chances and values comes out of one matrix product:

- All of them are linear in six columns of the cost table (``_BASIS``), which are prepared once. A state gives the
  coefficients (``_coefficients``), and ``_ENTRIES`` says which column and which feature each of them belongs to.
- The coefficients are plain Python floats, twenty times quicker than arrays of length one.
- Where payloads refer to earlier ones, the column of their bits changes with the state.
- One term is not linear: a payload waits for the backlog of the uplink only as far as the head does not hide it. It is
  subtracted afterwards.

Where rows are gated, their paths (``controller.gates``) are computed like rows of their own and averaged at the end.

Results are float32. Shapes: B states, C candidates, P paths that end early, D context features, F candidate features.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import cached_property
from operator import attrgetter
from typing import ClassVar, NamedTuple

import numpy as np

from controller.costs import CostTable
from controller.features.scalar import (
    CHANCE,
    DELAY_PENALTY,
    DEVICE_SHAPE,
    HISTORY_WEIGHTS,
    LEAST_AGE_S,
    LEAST_MOTION,
    LEAST_S,
    LEAST_SPEED,
    MEAN,
    MOST_DOUBLINGS,
    MOST_RATIO,
    RECOVERY_S,
    REPLY_SHAPE,
    SLACK,
    USUAL_MOTION,
    USUAL_SPEED,
    VALUE,
    FeatureTable,
    feature_table,
    log_of_usual,
    scores_by_place,
)
from controller.features.schema import BANDWIDTHS, CANDIDATE_FEATURES, CONTEXT_FEATURES, FEATURE_SCHEMA
from controller.predict.expectation import score_of_skipped
from controller.predict.uplink import FLOOR_BPS
from controller.records import UPLINK_HISTORY, Float32s, Floats, Ints, SystemState
from controller.timeline import GIVE_UP_DEADLINES, fallback_reserve_s
from controller.utility import Utility

_STRIDE = CANDIDATE_FEATURES.index("interval")
_HEAD = CANDIDATE_FEATURES.index("head")
_OCCUPANCY = CANDIDATE_FEATURES.index("occupancy")
_LINK_OCCUPANCY = CANDIDATE_FEATURES.index("link_occupancy")
_ENERGY = CANDIDATE_FEATURES.index("energy")

#: Columns of the table in which every candidate feature but chances and values is linear.
_BASIS = ("one", "accuracy", "sent", "head", "mec", "bits")
_BITS = _BASIS.index("bits")
#: Writes the features of a batch: table, state, (B, D) and (B, C, F).
FillBatch = Callable[[FeatureTable, SystemState, Float32s, Float32s], None]


class _Row(NamedTuple):
    """What the features take from a SystemState besides its uplink samples; the fields have the same names."""

    deadline_s: float
    capture_period_s: float
    frame_age_s: float
    uplink_age_s: float
    uplink_backlog_bytes: float
    rtt_s: float
    device_slowdown: float
    queued_frames: float
    in_flight: float
    mec_queue_s: float
    mec_queue_mean_s: float
    mec_slowdown: float
    mec_age_s: float
    link_up: float
    on_time_frac: float
    fallback_frac: float
    motion: float
    confidence: float
    reused_frac: float
    tracked_speed: float


_SCENE = _Row._fields.index("motion")
_columns, _scene = attrgetter(*_Row._fields[:_SCENE]), attrgetter(*_Row._fields[_SCENE:])


class Features:
    """Turns a SystemState into the policy's observation for one table of candidates."""

    #: How a batch is computed; without it, state by state.
    fill_batch: ClassVar[FillBatch | None] = None

    def __init__(self, costs: CostTable, utility: Utility) -> None:
        self.costs, self._utility = costs, utility
        weight = utility.energy_weight_per_j * 10.0
        self._compute_cost = utility.compute_power_w * weight
        self._radio_cost = utility.radio_power_w * weight
        self._paths, self._best = costs.paths, float(costs.accuracy_per_frame.max())
        costs = costs.paths
        self._sent = (~costs.space.device_only).astype(np.float32)
        self._accuracy = ((costs.accuracy_per_frame - self._best) * 10.0).astype(np.float32)
        self._values = _Values(costs, self._compute_cost, self._best)
        ones = np.ones(len(costs))
        bits = costs.uplink_bytes * 8.0
        basis = (ones, self._accuracy, self._sent, costs.head_s, costs.mec_s, bits)
        self._basis = np.stack(basis, axis=1).astype(np.float32)
        self._one_row = np.zeros((len(_BASIS), len(CANDIDATE_FEATURES)), np.float32)
        self._one_row_flat = self._one_row.reshape(-1)

    def of(self, state: SystemState) -> tuple[Float32s, Float32s]:
        """Context (B, D) and candidates (B, C, F), float32, clipped to the bounds of the schema."""
        batch, width = state.batch, len(CONTEXT_FEATURES)
        # One buffer for both, so that one call clips them; each part is contiguous.
        flat = np.empty(batch * (width + len(self._sent) * len(CANDIDATE_FEATURES)), np.float32)
        context = flat[: batch * width].reshape(batch, width)
        candidates = flat[batch * width :].reshape(batch, -1, len(CANDIDATE_FEATURES))
        if batch > 1 and (fill_batch := Features.fill_batch) is not None:
            fill_batch(self._table, state, context, candidates)
            return context, candidates[:, : len(self.costs)]
        columns, uplink_bps = [column.tolist() for column in _columns(state)], state.uplink_bps.tolist()
        columns += [[math.nan] * batch if column is None else column.tolist() for column in _scene(state)]
        for b in range(batch):
            if self.costs.streams:
                self._basis[:, _BITS] = self._bits(state.reference_age, b)
            row = _Row._make([column[b] for column in columns])
            self._fill(context[b], candidates[b], row, uplink_bps[b])
        flat.clip(FEATURE_SCHEMA.low, FEATURE_SCHEMA.high, out=flat)
        if self.costs.gates is not None:
            candidates = self.costs.mean(candidates.swapaxes(1, 2)).swapaxes(1, 2).astype(np.float32)
        return context, candidates

    def _bits(self, reference_age: Ints | None, b: int) -> Floats:
        """(C + P,) bits of the messages in state ``b``."""
        return self._paths.uplink_bytes_at(None if reference_age is None else reference_age[b : b + 1]) * 8.0

    @cached_property
    def _table(self) -> FeatureTable:
        return feature_table(self.costs, self._utility)

    def _fill(self, context: Float32s, table: Float32s, row: _Row, uplink_bps: Sequence[float]) -> None:
        """Write the features of one state into ``context`` (D,) and ``table`` (C, F)."""
        bandwidths = _estimates(uplink_bps, row.uplink_age_s)
        context[:] = _context(row, bandwidths, self._best)
        self._one_row_flat[_ENTRIES_FLAT] = self._coefficients(row, bandwidths)
        self._basis.dot(self._one_row, out=table)
        backlog = _backlog(row, bandwidths)
        if backlog > 0:
            blocked = np.maximum(backlog - table[:, _HEAD], 0.0)
            blocked *= self._sent
            table[:, SLACK:CHANCE] -= blocked[:, None]
        self._values.finish(table, row, self._reserve_s(row))

    def _reserve_s(self, row: _Row) -> float:
        """How long before the deadline a fallback begins."""
        return fallback_reserve_s(self.costs.fastest_local_s * row.device_slowdown)

    def _coefficients(self, s: _Row, bandwidths: Sequence[float]) -> list[float]:
        """What multiplies the basis, in the order of _ENTRIES."""
        per_deadline, per_period = 1.0 / s.deadline_s, 1.0 / s.capture_period_s
        per_bit = 1.0 / bandwidths[MEAN]
        head, mec = s.device_slowdown * per_deadline, s.mec_slowdown * per_deadline
        wait = (s.mec_queue_mean_s + s.rtt_s) * per_deadline
        left = 1.0 - s.frame_age_s * per_deadline
        entries = [
            1.0,
            1.0,
            head,
            s.frame_age_s * per_period - 1.0,
            s.device_slowdown * per_period,
            -1.0,
            s.uplink_backlog_bytes * 8.0 * per_bit * per_period,
            per_bit * per_period,
            per_bit * per_deadline,
            mec,
            wait,
            s.device_slowdown * self._compute_cost,
            per_bit * self._radio_cost,
        ]
        minus_head, minus_mec, minus_sent = -head, -mec, -wait - self._reserve_s(s) * per_deadline
        for bandwidth in bandwidths:
            entries += (left, minus_head, minus_mec, minus_sent, -per_deadline / bandwidth)
        return entries


class _Values:
    """Chances and values, and what frame strides change in the other features: a decision is compared per frame.

    Owns columns of the table of paths in float32, (C + P,) or (C + P, 1). ``best``: accuracy per frame of the best row.
    """

    def __init__(self, costs: CostTable, compute_cost: float, best: float) -> None:
        def column(values: Floats) -> Float32s:
            return values.astype(np.float32)[:, None]

        sent = ~costs.space.device_only
        self._strides = costs.longest_stride > 1
        self._stride = costs.stride.astype(np.float32)
        self._later = self._stride - 1.0
        self._sent, self._is_local = sent.astype(np.float32), ~sent[:, None]
        self._shape = np.where(sent, np.float32(REPLY_SHAPE), np.float32(DEVICE_SHAPE))[:, None]
        self._accuracy, self._per_frame = column(costs.accuracy), column(1.0 / costs.stride)
        self._skipped = column(costs.skipped_score)
        self._losses = [column(loss) for loss in costs.stale_losses]
        self._rescued = [column(score) for score in scores_by_place(costs)[1]]
        self._best, self._fallback_s = best, costs.fastest_local_s
        self._compute_cost = compute_cost

    def finish(self, out: Float32s, row: _Row, reserve_s: float) -> None:
        """Write into ``out`` (C, F) what rests on the other features."""
        if self._strides:
            out[:, _STRIDE] = self._later * 0.5
            out[:, _OCCUPANCY : _LINK_OCCUPANCY + 1] -= self._later[:, None]
            out[:, _ENERGY] /= self._stride
        reserve = reserve_s / row.deadline_s
        begin = self._sent * out[:, _HEAD] + row.frame_age_s / row.deadline_s
        rescued = self._sent * (begin <= 1.0 - reserve)
        total = (1.0 - reserve * self._sent)[:, None] - out[:, SLACK:CHANCE]  # in deadlines
        takes = np.maximum(total - begin[:, None], LEAST_S / row.deadline_s)
        chance = self._chance((1.0 - begin - reserve * rescued)[:, None], takes)
        skipped = self._score_of_skipped(row, total)
        value = self._value(out, row, skipped, chance, rescued[:, None])
        longer = self._chance((1.0 - begin)[:, None], takes)
        waited = self._value(out, row, skipped, longer, None)
        waits = (waited > value) & (rescued > 0.0)[:, None]
        out[:, CHANCE:VALUE] = np.where(waits, longer, chance)
        out[:, VALUE:] = np.where(waits, waited, value)

    def _chance(self, left: Float32s, takes: Float32s) -> Float32s:
        """(C, Q) from (C, 1) and (C, Q) in deadlines."""
        odds: Float32s = (left / takes).clip(0.0, MOST_RATIO) ** self._shape
        odds /= odds + 1.0
        return odds

    def _score_of_skipped(self, row: _Row, total: Float32s) -> Float32s | None:
        """(C, Q) sum of the scores of the skipped frames, from (C, Q) times in deadlines; None without strides."""
        if not self._strides:
            return None
        score = score_of_skipped(self._skipped, self._losses, total * (row.deadline_s / row.capture_period_s))
        score *= (total <= GIVE_UP_DEADLINES) | self._is_local
        return score

    def _value(
        self, out: Float32s, row: _Row, skipped: Float32s | None, chance: Float32s, rescued: Float32s | None
    ) -> Float32s:
        """(C, Q) from the features, scores of the skipped frames and chances (C, Q), and (C, 1); without ``rescued``,
        if the device waits for the reply instead of a fallback."""
        late = out[:, _OCCUPANCY, None]
        value = chance * self._accuracy
        if rescued is not None:
            missed = (1.0 - chance) * rescued
            fallback_s = self._fallback_s * row.device_slowdown
            late = late + missed * (fallback_s / row.capture_period_s)
            frames = row.deadline_s / row.capture_period_s
            rescued_score = self._rescued[min(max(math.ceil(frames) - 1, 0), len(self._losses))]
            value += missed * (rescued_score - 0.1 * self._compute_cost * fallback_s)
        value -= DELAY_PENALTY * (np.maximum(late, 0.0) + np.maximum(out[:, _LINK_OCCUPANCY, None], 0.0))
        if skipped is not None:
            value += skipped if rescued is None else skipped * (1.0 - missed)
            value *= self._per_frame
        gain = 10.0 * (value - self._best) - out[:, _ENERGY, None]
        squashed: Float32s = gain / (gain / FEATURE_SCHEMA.low + 1.0)
        return squashed


def _estimates(uplink_bps: Sequence[float], age_s: float) -> list[float]:
    """The estimates named in BANDWIDTHS, from UPLINK_HISTORY samples; as ``scalar.estimates``."""
    bps = [max(value, FLOOR_BPS) for value in uplink_bps]
    recent = sum([weight * value for weight, value in zip(HISTORY_WEIGHTS, bps, strict=True)])
    hope = 2.0 ** min(age_s / RECOVERY_S, MOST_DOUBLINGS)
    return [bps[0], recent * hope, UPLINK_HISTORY / sum([1.0 / value for value in bps]), min(bps)]


def _entry(basis: str, feature: str) -> tuple[int, int]:
    return _BASIS.index(basis), CANDIDATE_FEATURES.index(feature)


_ENTRIES = [
    _entry("accuracy", "accuracy"),
    _entry("sent", "sent"),
    _entry("head", "head"),
    _entry("one", "occupancy"),
    _entry("head", "occupancy"),
    _entry("one", "link_occupancy"),
    _entry("sent", "link_occupancy"),
    _entry("bits", "link_occupancy"),
    _entry("bits", "transmit"),
    _entry("mec", "mec"),
    _entry("sent", "mec"),
    _entry("head", "energy"),
    _entry("bits", "energy"),
    *(_entry(b, f"slack_{q}") for q in BANDWIDTHS for b in ("one", "head", "mec", "sent", "bits")),
]
_ENTRIES_FLAT = np.array([basis * len(CANDIDATE_FEATURES) + feature for basis, feature in _ENTRIES])


def _backlog(s: _Row, bandwidths: Sequence[float]) -> float:
    """Time that the uplink needs for own bytes under the mean, in deadlines."""
    return s.uplink_backlog_bytes * 8.0 / bandwidths[MEAN] / s.deadline_s


def _context(s: _Row, bandwidths: Sequence[float], best: float) -> list[float]:
    """The context features in the order of the schema; ``best``: accuracy per frame of the table."""
    last, mean, least = (math.log10(bandwidths[i]) - 6.0 for i in (0, MEAN, -1))
    per_deadline = 1.0 / s.deadline_s
    return [
        last,
        mean,
        least,
        mean - least,
        last - mean,
        s.uplink_age_s * per_deadline,
        math.log10(s.uplink_age_s + LEAST_AGE_S),
        _backlog(s, bandwidths),
        s.in_flight,
        s.queued_frames,
        s.frame_age_s * per_deadline,
        math.log10(s.device_slowdown),
        math.log10(s.mec_slowdown),
        s.mec_queue_s * per_deadline,
        s.mec_queue_mean_s * per_deadline,
        s.mec_age_s,
        s.rtt_s * per_deadline,
        math.log10(s.deadline_s) + 1.0,
        s.capture_period_s * per_deadline,
        s.on_time_frac,
        s.fallback_frac,
        s.link_up,
        *_scene_features(s, best),
    ]


def _scene_features(s: _Row, best: float) -> list[float]:
    """What the parts know of the scene; 0 where it is not known, which is the only number that is not its own equal."""
    found = (
        log_of_usual(s.motion, USUAL_MOTION, LEAST_MOTION),
        10.0 * (s.confidence - best),
        s.reused_frac,
        log_of_usual(s.tracked_speed, USUAL_SPEED, LEAST_SPEED),
    )
    return [value if value == value else 0.0 for value in found]
