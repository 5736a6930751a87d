"""The features in few array operations, for the loop of the device and for the twin.

``controller.features.formula`` is the readable form, and a test compares the two. This one exists for its speed. A
device computes the features of one state before every decision: 15 us for the 18 candidates of garments, where the
formula takes 350 us; with the policy a decision takes 27 us (``benchmarks.bench_decide``). The twin computes those of
batches: 90 us for 64 states, where the formula takes 470 us.

Every feature but the greedy values comes out of one matrix product:

- All of them are linear in six columns of the cost table (``_BASIS``), which are prepared once. A state gives the
  coefficients (``_coefficients``), and ``_ENTRIES`` says which column and which feature each of them belongs to.
- The coefficients of one state are plain Python floats, twenty times quicker than arrays of length one. Those of a
  batch are arrays (B,). The arithmetic is written once for both: ``N`` stands for either.
- One term is not linear: a payload waits for the backlog of the uplink only as far as the head does not hide it.
  For one state it is subtracted afterwards; in a batch it is one more column of the basis.

Results are float32. Shapes: B states, C candidates, D context features, F candidate features.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from operator import attrgetter
from typing import Generic, NamedTuple, TypeVar

import numpy as np

from controller.costs import CostTable
from controller.features.formula import (
    DELAY_PENALTY,
    HEADROOM_FRAC,
    HISTORY_WEIGHTS,
    LEAST_AGE_S,
    MEAN,
    MOST_DOUBLINGS,
    RECOVERY_S,
)
from controller.features.schema import BANDWIDTHS, CANDIDATE_FEATURES, CONTEXT_FEATURES, FEATURE_SCHEMA
from controller.predict.expectation import score_of_skipped
from controller.predict.uplink import FLOOR_BPS
from controller.records import UPLINK_HISTORY, Bools, Float32s, Floats, SystemState
from controller.timeline import fallback_reserve_s
from controller.utility import Utility

_STRIDE = CANDIDATE_FEATURES.index("interval")
_HEAD = CANDIDATE_FEATURES.index("head")
_SLACK = CANDIDATE_FEATURES.index(f"slack_{BANDWIDTHS[0]}")
_OCCUPANCY = CANDIDATE_FEATURES.index("occupancy")
_LINK_OCCUPANCY = CANDIDATE_FEATURES.index("link_occupancy")
_ENERGY = CANDIDATE_FEATURES.index("energy")
_GREEDY_VALUE = CANDIDATE_FEATURES.index(f"promise_{BANDWIDTHS[0]}")

#: Columns of the table in which every candidate feature but the greedy values is linear.
_BASIS = ("one", "accuracy", "sent", "head", "mec", "bits")
#: For a batch: numpy takes 0.4 us to convert a Python number in an operation, and nothing for an array without axes.
_ONE, _EIGHT, _FLOOR = (np.array(float(value)) for value in (1, UPLINK_HISTORY, FLOOR_BPS))

#: float for one state, (B,) float64 for a batch.
N = TypeVar("N", float, Floats)


class _Row(NamedTuple, Generic[N]):
    """What the features take from a SystemState besides its uplink samples; the fields have the same names."""

    deadline_s: N
    capture_period_s: N
    frame_age_s: N
    uplink_age_s: N
    uplink_backlog_bytes: N
    rtt_s: N
    device_slowdown: N
    queued_frames: N
    in_flight: N
    mec_queue_s: N
    mec_queue_mean_s: N
    mec_slowdown: N
    mec_age_s: N
    link_up: N
    on_time_frac: N
    fallback_frac: N


_columns = attrgetter(*_Row._fields)


class Features:
    """Turns a SystemState into the policy's observation for one table of candidates."""

    def __init__(self, costs: CostTable, utility: Utility) -> None:
        self.costs = costs
        weight = utility.energy_weight_per_j * 10.0
        self._compute_cost = utility.compute_power_w * weight
        self._radio_cost = utility.radio_power_w * weight
        self._sent = (~costs.space.device_only).astype(np.float32)
        self._accuracy = ((costs.accuracy_per_frame - costs.accuracy_per_frame.max()) * 10.0).astype(np.float32)
        self._in_time = self._accuracy[:, None]  # greedy value of an answer in time, before what it charges
        missed = (costs.rescued_accuracy - costs.accuracy.max()) * 10.0
        self._missed = missed.astype(np.float32)[:, None]  # and of one that is not
        self._strides = _Strides(costs) if costs.longest_stride > 1 else None
        ones = np.ones(len(costs))
        bits = costs.payload_bytes * 8.0
        basis = (ones, self._accuracy, self._sent, costs.head_s, costs.mec_s, bits)
        self._basis = np.stack(basis, axis=1).astype(np.float32)
        self._one_row = np.zeros((len(_BASIS), len(CANDIDATE_FEATURES)), np.float32)
        self._one_row_flat = self._one_row.reshape(-1)
        self._wide = np.zeros((0, 0, 0), np.float32)  # (B, C, basis + 1), kept from call to call

    def of(self, state: SystemState) -> tuple[Float32s, Float32s]:
        """Context (B, D) and candidates (B, C, F), float32, clipped to the bounds of the schema."""
        batch, width = state.batch, len(CONTEXT_FEATURES)
        # One buffer for both, so that one call clips them; each part is contiguous.
        flat = np.empty(batch * (width + len(self._sent) * len(CANDIDATE_FEATURES)), np.float32)
        context = flat[: batch * width].reshape(batch, width)
        candidates = flat[batch * width :].reshape(batch, -1, len(CANDIDATE_FEATURES))
        fill = self._fill_one if batch == 1 else self._fill_batch
        fill(context, candidates, state)
        flat.clip(FEATURE_SCHEMA.low, FEATURE_SCHEMA.high, out=flat)
        return context, candidates

    def _fill_one(self, context: Float32s, candidates: Float32s, state: SystemState) -> None:
        """Write the features of one state into ``context`` (1, D) and ``candidates`` (1, C, F)."""
        row: _Row[float] = _Row._make([column.tolist()[0] for column in _columns(state)])
        bandwidths = _estimates_one(state.uplink_bps.tolist()[0], row.uplink_age_s)
        context[0] = _context(math.log10, row, bandwidths)
        table = candidates[0]
        self._one_row_flat[_ENTRIES_FLAT] = self._coefficients(row, bandwidths, 1.0)
        self._basis.dot(self._one_row, out=table)
        backlog = _backlog(row, bandwidths)
        if backlog > 0:
            blocked = np.maximum(backlog - table[:, _HEAD], 0.0)
            blocked *= self._sent
            table[:, _SLACK:_GREEDY_VALUE] -= blocked[:, None]
        if self._strides is not None:
            self._strides.finish(candidates, row, self._reserve_s(row))
        else:
            self._greedy_one(table, _headroom(row))

    def _fill_batch(self, context: Float32s, candidates: Float32s, state: SystemState) -> None:
        """The same for a batch, into (B, D) and (B, C, F)."""
        row: _Row[Floats] = _Row._make(_columns(state))
        bandwidths = _estimates_batch(state.uplink_bps.T, row.uplink_age_s)
        context[...] = np.array(_context(np.log10, row, bandwidths), np.float32).T
        self._multiply(candidates, row, bandwidths)
        if self._strides is not None:
            self._strides.finish(candidates, row, self._reserve_s(row))
        else:
            self._greedy_batch(candidates, _headroom(row).astype(np.float32)[:, None])

    def _multiply(self, out: Float32s, row: _Row[Floats], bandwidths: Sequence[Floats]) -> None:
        """Write the linear features of a batch into ``out`` (B, C, F); the blocked time is one more basis column."""
        entries = np.array(self._coefficients(row, bandwidths, np.ones(len(out))), np.float32)
        coefficients = (entries.T @ _SCATTER).reshape(len(out), len(_BASIS) + 1, -1)
        blocked = np.multiply.outer(-entries[_HEAD_ENTRY], self._basis[:, _BASIS.index("head")])
        blocked += _backlog(row, bandwidths).astype(np.float32)[:, None]
        np.maximum(blocked, 0.0, out=blocked)
        if len(self._wide) != len(out):
            self._wide = np.zeros((len(out), len(self._basis), len(_BASIS) + 1), np.float32)
            self._wide[:, :, :-1] = self._basis
        np.multiply(blocked, self._sent, out=self._wide[:, :, -1])
        np.matmul(self._wide, coefficients, out=out)

    def _greedy_one(self, table: Float32s, headroom: float) -> None:
        """Write the greedy values, which rest on the other features, into ``table`` (C, F)."""
        value = np.where(table[:, _SLACK:_GREEDY_VALUE] > headroom, self._in_time, self._missed)
        np.subtract(value, _charge(table)[:, None], out=table[:, _GREEDY_VALUE:])

    def _greedy_batch(self, out: Float32s, headroom: Float32s) -> None:
        """The same for ``out`` (B, C, F), estimate by estimate: an innermost loop over four would cost more."""
        charge = _charge(out)
        in_time, missed = self._in_time[:, 0] - charge, self._missed[:, 0] - charge
        for estimate in range(len(BANDWIDTHS)):
            on_time = out[..., _SLACK + estimate] > headroom
            out[..., _GREEDY_VALUE + estimate] = np.where(on_time, in_time, missed)

    def _reserve_s(self, row: _Row[N]) -> N:
        """How long before the deadline a fallback begins."""
        return fallback_reserve_s(self.costs.fastest_local_s * row.device_slowdown)

    def _coefficients(self, s: _Row[N], bandwidths: Sequence[N], one: N) -> list[N]:
        """What multiplies the basis, in the order of _ENTRIES; ``one`` is 1, or an array of ones."""
        per_deadline, per_period = one / s.deadline_s, one / s.capture_period_s
        per_bit = one / bandwidths[MEAN]
        head, mec = s.device_slowdown * per_deadline, s.mec_slowdown * per_deadline
        wait = (s.mec_queue_mean_s + s.rtt_s) * per_deadline
        left = one - s.frame_age_s * per_deadline
        entries = [
            one,
            one,
            head,
            s.frame_age_s * per_period - one,
            s.device_slowdown * per_period,
            -one,
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


class _Strides:
    """What frame strides change in the features: a decision is compared per frame, and answers age.

    Owns columns of the cost table (C,) in float32.
    """

    def __init__(self, costs: CostTable) -> None:
        self._stride = costs.stride.astype(np.float32)
        self._sent = (~costs.space.device_only).astype(np.float32)
        self._own = costs.accuracy.astype(np.float32)
        self._skipped = costs.skipped_score.astype(np.float32)
        self._losses = [loss.astype(np.float32) for loss in costs.stale_losses]
        self._rescued = costs.rescued_accuracy.astype(np.float32)
        self._rescued_share = costs.rescued_share.astype(np.float32)
        self._best = float(costs.accuracy_per_frame.max())

    def finish(self, out: Float32s, row: _Row[N], reserve_s: N) -> None:
        """Divide by frames in (B, C, F), and write the greedy values, which rest on the other features."""
        out[..., _STRIDE] = (self._stride - 1.0) * 0.5
        out[..., _OCCUPANCY] -= self._stride - 1.0
        out[..., _LINK_OCCUPANCY] -= self._stride - 1.0
        out[..., _ENERGY] /= self._stride
        late = np.maximum(out[..., _OCCUPANCY], 0.0) + np.maximum(out[..., _LINK_OCCUPANCY], 0.0)
        charge = 10.0 * DELAY_PENALTY * late / self._stride + out[..., _ENERGY]
        headroom = _against_candidates(_headroom(row))
        reserve = _against_candidates(reserve_s / row.deadline_s) * self._sent
        frames = _against_candidates(row.deadline_s / row.capture_period_s)
        for estimate in range(len(BANDWIDTHS)):
            slack = out[..., _SLACK + estimate]
            on_time = slack > headroom
            answer = 1.0 - slack - reserve  # in deadlines
            value = self._score(on_time, np.where(on_time | (self._sent == 0), answer, 1.0) * frames) / self._stride
            out[..., _GREEDY_VALUE + estimate] = 10.0 * (value - self._best) - charge

    def _score(self, on_time: Bools, answer_frames: Float32s) -> Float32s:
        """(B, C) score of all frames of the decision, when the answer takes this many capture periods (B, C)."""
        skipped = score_of_skipped(self._skipped, self._losses, answer_frames)
        return np.where(on_time, self._own + skipped, self._rescued + self._rescued_share * skipped)


def _estimates_one(uplink_bps: Sequence[float], age_s: float) -> list[float]:
    """The estimates named in BANDWIDTHS, from UPLINK_HISTORY samples; as ``formula.bandwidth_estimates``."""
    bps = [max(value, FLOOR_BPS) for value in uplink_bps]
    recent = sum([weight * value for weight, value in zip(HISTORY_WEIGHTS, bps, strict=True)])
    hope = 2.0 ** min(age_s / RECOVERY_S, MOST_DOUBLINGS)
    return [bps[0], recent * hope, UPLINK_HISTORY / sum([1.0 / value for value in bps]), min(bps)]


def _estimates_batch(uplink_bps: Floats, age_s: Floats) -> list[Floats]:
    """The same from (UPLINK_HISTORY, B) samples."""
    bps = np.maximum(uplink_bps, _FLOOR)
    hope = np.exp2(np.minimum(age_s / RECOVERY_S, MOST_DOUBLINGS))
    return [bps[0], HISTORY_WEIGHTS @ bps * hope, _EIGHT / np.add.reduce(_ONE / bps), np.minimum.reduce(bps)]


def _headroom(s: _Row[N]) -> N:
    """Slack above which the greedy value counts an answer as in time, in deadlines."""
    return HEADROOM_FRAC * (1.0 - s.frame_age_s / s.deadline_s)


def _against_candidates(value: float | Floats) -> Float32s:
    """A number, or numbers (B,), as (B, 1)."""
    return np.asarray(value, np.float32).reshape(-1, 1)


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
_HEAD_ENTRY = _ENTRIES.index(_entry("head", "head"))


def _scatter() -> Float32s:
    """(entries, (basis + 1) * F) that puts every entry in its place, and -1 where slack meets the blocked time."""
    width = len(CANDIDATE_FEATURES)
    scatter = np.zeros((len(_ENTRIES), (len(_BASIS) + 1) * width), np.float32)
    scatter[np.arange(len(_ENTRIES)), _ENTRIES_FLAT] = 1.0
    blocked = len(_BASIS) * width
    scatter[0, blocked + _SLACK : blocked + _GREEDY_VALUE] = -1.0  # the first entry is 1
    return scatter


_SCATTER = _scatter()


def _charge(features: Float32s) -> Float32s:
    """What each candidate of (..., C, F) costs in tenths of utility: energy, and the frames it delays."""
    charge: Float32s = np.maximum(features[..., _OCCUPANCY], 0.0)
    charge += np.maximum(features[..., _LINK_OCCUPANCY], 0.0)
    charge *= 10.0 * DELAY_PENALTY
    charge += features[..., _ENERGY]
    return charge


def _backlog(s: _Row[N], bandwidths: Sequence[N]) -> N:
    """Time that the uplink needs for own bytes under the mean, in deadlines."""
    return s.uplink_backlog_bytes * 8.0 / bandwidths[MEAN] / s.deadline_s


def _context(log10: Callable[[N], N], s: _Row[N], bandwidths: Sequence[N]) -> list[N]:
    """The context features in the order of the schema."""
    last, mean, least = (log10(bandwidths[i]) - 6.0 for i in (0, MEAN, -1))
    per_deadline = 1.0 / s.deadline_s
    return [
        last,
        mean,
        least,
        mean - least,
        last - mean,
        s.uplink_age_s * per_deadline,
        log10(s.uplink_age_s + LEAST_AGE_S),
        _backlog(s, bandwidths),
        s.in_flight,
        s.queued_frames,
        s.frame_age_s * per_deadline,
        log10(s.device_slowdown),
        log10(s.mec_slowdown),
        s.mec_queue_s * per_deadline,
        s.mec_queue_mean_s * per_deadline,
        s.mec_age_s,
        s.rtt_s * per_deadline,
        log10(s.deadline_s) + 1.0,
        s.capture_period_s * per_deadline,
        s.on_time_frac,
        s.fallback_frac,
        s.link_up,
    ]
