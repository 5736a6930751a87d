"""What does the policy see? Context of the moment, and features of every candidate decision.

The policy scores candidates with weights that all of them share, so the same policy file serves another model set,
another deadline and another device. For that every feature is relative: times to the deadline, bandwidths on a log
scale, accuracy to the best of the table. The schema (names in order, and the scales) has a digest; a policy that was
trained on another one is refused.

One row must cost microseconds (it runs in the device's loop), thousands of rows must be cheap too (the twin), so the
code counts array operations: what only depends on the table is prepared once.
"""

from __future__ import annotations

import hashlib
import math
from collections import namedtuple
from dataclasses import dataclass, fields
from operator import attrgetter
from typing import Any

import numpy as np
from numpy.typing import NDArray

from controller.costs import CostTable
from controller.predict.uplink import FLOOR_BPS
from controller.records import UPLINK_HISTORY, SystemState
from controller.timeline import FALLBACK_MARGIN, FALLBACK_SLACK_S
from controller.utility import Utility

Float32s = NDArray[np.float32]

#: Bandwidth estimates under which each candidate's slack is shown, from hopeful to careful.
BANDWIDTHS = ("last", "hopeful", "mean8", "least8")
#: "hopeful" weighs each sample half as much as the next newer one, and doubles with so many seconds without a sample:
#: bandwidth is only seen by sending, so a device that gave up on the uplink must come to try it again.
_RECOVERY_S = 3.0
_MOST_DOUBLINGS = 10.0
_HALVES = [0.5 ** (i + 1) for i in range(UPLINK_HISTORY)]
_HALVES[-1] *= 2  # so that they sum to one

CONTEXT_FEATURES = (
    "log_last_bps",  # newest uplink sample, log10 around 1 Mbit/s
    "log_mean8_bps",  # harmonic mean of the history
    "log_least8_bps",
    "spread",  # log ratio of the mean over the least
    "trend",  # log ratio of the newest over the mean
    "sample_age",  # of the newest uplink sample, in deadlines
    "log_sample_age",  # log10 of it in seconds, around 1 s: whether to try the uplink again is decided by seconds
    "backlog",  # time the uplink needs for own bytes under the mean, in deadlines
    "in_flight",
    "queued_frames",
    "frame_age",  # in deadlines
    "log_slowdown",  # of the device
    "log_mec_slowdown",
    "mec_queue",  # in deadlines
    "mec_queue_mean",  # in deadlines
    "mec_age",  # since the last reply, in seconds
    "rtt",  # in deadlines
    "log_deadline",  # log10 around 100 ms
    "interval",  # between frames, in deadlines
    "on_time",
    "fallback",
    "link_up",
)

CANDIDATE_FEATURES = (
    "accuracy",  # per frame that is answered, those that are not run included; below the best of the table, in tenths
    "interval",  # frames until the next decision that are not run, halved
    "sent",  # 1 when the MEC is asked
    "head",  # device time in deadlines
    "occupancy",  # frame intervals by which the device will be late for the next decision; negative: idle before it
    "link_occupancy",  # the same for the uplink, under the mean
    "transmit",  # under the mean, in deadlines
    "mec",  # queue, tail and round trip, in deadlines
    "energy",  # its cost in utility per frame, in tenths
    *(f"slack_{name}" for name in BANDWIDTHS),  # in deadlines; until the fallback would step in when the MEC is asked
    *(f"promise_{name}" for name in BANDWIDTHS),  # the greedy rule's value, in tenths below the best accuracy
)

_DIGEST_INPUT = f"v6|{CONTEXT_FEATURES}|{CANDIDATE_FEATURES}|{UPLINK_HISTORY}"


@dataclass(frozen=True, slots=True)
class FeatureSchema:
    """Names of the features in order, and a digest over them and their scales."""

    context: tuple[str, ...] = CONTEXT_FEATURES
    candidate: tuple[str, ...] = CANDIDATE_FEATURES
    low: float = -4.0  # every feature is clipped to [low, high]
    high: float = 4.0

    @property
    def digest(self) -> str:
        return hashlib.sha256(_DIGEST_INPUT.encode()).hexdigest()


FEATURE_SCHEMA = FeatureSchema()

_INTERVAL = CANDIDATE_FEATURES.index("interval")
_HEAD = CANDIDATE_FEATURES.index("head")
_SLACK = CANDIDATE_FEATURES.index(f"slack_{BANDWIDTHS[0]}")
_OCCUPANCY = CANDIDATE_FEATURES.index("occupancy")
_LINK_OCCUPANCY = CANDIDATE_FEATURES.index("link_occupancy")
_ENERGY = CANDIDATE_FEATURES.index("energy")
_PROMISE = CANDIDATE_FEATURES.index(f"promise_{BANDWIDTHS[0]}")
_MEAN = BANDWIDTHS.index("mean8")
#: A promise is believed when its slack is more than this share of what is left of the deadline...
_HEADROOM_FRAC = 0.1
#: ... and pays this much utility for each frame interval by which it delays the next frames.
_DELAY_PENALTY = 0.1
#: Keeps the logarithm of a sample's age finite.
_LEAST_AGE_S = 0.01

#: Every candidate feature but the promises is linear in these columns of the table; the state gives the coefficients.
_BASIS = ("one", "accuracy", "sent", "head", "mec", "bits")

Number = Any  # float on the device's path, (B,) array on the twin's: the formulas below are the same


#: For the batched path: numpy takes a number into an operation in 0.4 us, an array without axes in none.
_ONE, _EIGHT, _FLOOR = (np.array(float(value)) for value in (1, UPLINK_HISTORY, FLOOR_BPS))


class _Scalars:
    """Arithmetic for one row: plain floats are twenty times quicker than arrays of length one."""

    log10 = staticmethod(math.log10)
    maximum = staticmethod(max)

    @staticmethod
    def bandwidths(row: _Row) -> list[Number]:
        """The estimates named in BANDWIDTHS: newest, raised by hope, harmonic mean of 8, least of 8."""
        bps = [max(value, FLOOR_BPS) for value in row.uplink_bps]
        recent = sum([half * value for half, value in zip(_HALVES, bps, strict=True)])
        hope = 2.0 ** min(row.uplink_age_s / _RECOVERY_S, _MOST_DOUBLINGS)
        return [bps[0], recent * hope, UPLINK_HISTORY / sum([1.0 / value for value in bps]), min(bps)]

    @staticmethod
    def row(state: SystemState) -> _Row:
        return _RowTuple._make([column.tolist()[0] for column in _columns(state)])


class _Arrays:
    """The same arithmetic for a batch."""

    log10 = staticmethod(np.log10)
    maximum = staticmethod(np.maximum)

    @staticmethod
    def bandwidths(row: _Row) -> list[Number]:
        """The same, with the history as (UPLINK_HISTORY, B)."""
        bps = np.maximum(row.uplink_bps, _FLOOR)
        hope = np.exp2(np.minimum(row.uplink_age_s / _RECOVERY_S, _MOST_DOUBLINGS))
        return [bps[0], _HALVES @ bps * hope, _EIGHT / np.add.reduce(_ONE / bps), np.minimum.reduce(bps)]

    @staticmethod
    def row(state: SystemState) -> _Row:
        row = _RowTuple._make(_columns(state))
        return row._replace(uplink_bps=state.uplink_bps.T)  # type: ignore[call-arg]


_Kind = type[_Scalars] | type[_Arrays]
_FIELDS = [f.name for f in fields(SystemState) if f.name != "true_latency_s"]
_RowTuple: Any = namedtuple("_RowTuple", _FIELDS)  # type: ignore[misc]
_columns = attrgetter(*_FIELDS)
_Row = Any  # a _RowTuple; the type checker cannot see names that come from a list


class Features:
    """Turns a SystemState into the policy's observation for one table of candidates."""

    def __init__(self, costs: CostTable, utility: Utility) -> None:
        self.costs = costs
        weight = utility.energy_weight_per_j * 10.0
        self._compute_cost = utility.compute_power_w * weight
        self._radio_cost = utility.radio_power_w * weight
        self._sent = (~costs.space.device_only).astype(np.float32)
        self._accuracy = ((costs.worth - costs.worth.max()) * 10.0).astype(np.float32)
        fastest = costs.local_frontier[:1]
        self._fastest_s = float(costs.head_s[fastest].sum())  # 0 when nothing can be answered locally
        fallback = float(costs.accuracy[fastest].sum())
        rescue = np.where(costs.space.device_only, 0.0, fallback) - costs.accuracy.max()
        self._kept = self._accuracy[:, None]  # score of a promise that is kept, and of one that is not
        self._missed = (rescue * 10.0).astype(np.float32)[:, None]
        self._ageing = _Ageing(costs, fallback) if costs.longest_interval > 1 else None
        ones = np.ones(len(costs))
        basis = (
            ones,
            self._accuracy,
            self._sent,
            costs.head_s,
            costs.mec_s,
            costs.payload_bytes * 8.0,
        )
        self._basis = np.stack(basis, axis=1).astype(np.float32)
        self._one_row = np.zeros((len(_BASIS), len(CANDIDATE_FEATURES)), np.float32)
        self._one_row_flat = self._one_row.reshape(-1)
        self._wide = np.zeros((0, 0, 0), np.float32)  # (B, C, basis + 1), kept from call to call

    def of(self, state: SystemState) -> tuple[Float32s, Float32s]:
        """Context (B, D) and candidates (B, C, F), float32, clipped to the schema's bounds."""
        batch, width = state.batch, len(CONTEXT_FEATURES)
        kind: _Kind = _Scalars if batch == 1 else _Arrays
        row = kind.row(state)
        bandwidths = kind.bandwidths(row)
        # One buffer for both, so that one call clips them; each part is contiguous.
        flat = np.empty(batch * (width + len(self._sent) * len(CANDIDATE_FEATURES)), np.float32)
        context = flat[: batch * width].reshape(batch, width)
        candidates = flat[batch * width :].reshape(batch, -1, len(CANDIDATE_FEATURES))
        _pack(_context(kind, row, bandwidths), context)
        fill = self._fill_one if batch == 1 else self._fill_batch
        fill(candidates, row, bandwidths)
        flat.clip(FEATURE_SCHEMA.low, FEATURE_SCHEMA.high, out=flat)
        return context, candidates

    def _fill_one(self, out: Float32s, row: _Row, bandwidths: list[Number]) -> None:
        """Write the features of every candidate into ``out`` (1, C, F)."""
        table = out[0]
        self._one_row_flat[_ENTRIES_FLAT] = self._coefficients(row, bandwidths, 1.0)
        self._basis.dot(self._one_row, out=table)
        backlog = _backlog(row, bandwidths)
        if backlog > 0:
            blocked = np.maximum(backlog - table[:, _HEAD], 0.0)
            blocked *= self._sent
            table[:, _SLACK:_PROMISE] -= blocked[:, None]
        if self._ageing is not None:
            self._ageing.finish(out, row, self._reserve_s(row))
        else:
            self._promise_one(table, _HEADROOM_FRAC * (1.0 - row.frame_age_s / row.deadline_s))

    def _fill_batch(self, out: Float32s, row: _Row, bandwidths: list[Number]) -> None:
        """The same for ``out`` (B, C, F); what is blocked goes through the product as one more column of the basis."""
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
        if self._ageing is not None:
            self._ageing.finish(out, row, self._reserve_s(row))
            return
        headroom = _HEADROOM_FRAC * (1.0 - row.frame_age_s / row.deadline_s)
        self._promise_batch(out, headroom.astype(np.float32)[:, None])

    def _promise_one(self, table: Float32s, headroom: float) -> None:
        """Write the promises, which rest on the other features, into ``table`` (C, F)."""
        promise = np.where(table[:, _SLACK:_PROMISE] > headroom, self._kept, self._missed)
        np.subtract(promise, _charge(table)[:, None], out=table[:, _PROMISE:])

    def _promise_batch(self, out: Float32s, headroom: Float32s) -> None:
        """The same for ``out`` (B, C, F), estimate by estimate: an innermost loop over four would cost more."""
        charge = _charge(out)
        kept, missed = self._kept[:, 0] - charge, self._missed[:, 0] - charge
        for estimate in range(len(BANDWIDTHS)):
            on_time = out[..., _SLACK + estimate] > headroom
            out[..., _PROMISE + estimate] = np.where(on_time, kept, missed)

    def _reserve_s(self, row: _Row) -> Number:
        """How long before the deadline a fallback begins."""
        return FALLBACK_MARGIN * self._fastest_s * row.device_slowdown + FALLBACK_SLACK_S

    def _coefficients(self, s: _Row, bandwidths: list[Number], one: Number) -> list[Number]:
        """What multiplies the basis, in the order of _ENTRIES; ``one`` is 1, or an array of them."""
        per_deadline, per_interval = one / s.deadline_s, one / s.capture_period_s
        per_bit = one / bandwidths[_MEAN]
        head, mec = s.device_slowdown * per_deadline, s.mec_slowdown * per_deadline
        wait = (s.mec_queue_mean_s + s.rtt_s) * per_deadline
        left = one - s.frame_age_s * per_deadline
        reserve = self._reserve_s(s)
        entries = [
            one,
            one,
            head,
            s.frame_age_s * per_interval - one,
            s.device_slowdown * per_interval,
            -one,
            s.uplink_backlog_bytes * 8.0 * per_bit * per_interval,
            per_bit * per_interval,
            per_bit * per_deadline,
            mec,
            wait,
            s.device_slowdown * self._compute_cost,
            per_bit * self._radio_cost,
        ]
        minus = (-head, -mec, -wait - reserve * per_deadline)
        for bandwidth in bandwidths:
            entries += (left, *minus, -per_deadline / bandwidth)
        return entries


class _Ageing:
    """What frame intervals change in the features: a decision is compared per frame, and answers age.

    Owns what only depends on the table, (C,) each.
    """

    def __init__(self, costs: CostTable, fallback: float) -> None:
        def column(values: Any) -> Float32s:
            return np.asarray(values, np.float32)

        self._interval = column(costs.interval)
        self._sent = column(~costs.space.device_only)
        self._own = column(costs.accuracy)
        self._skipped = column(costs.skipped_score)
        self._losses = [column(loss) for loss in costs.stale_losses]
        self._rescue = column(np.where(costs.space.device_only, 0.0, fallback))
        # What a fallback leaves to the frames that are not run ages as the decision's own answer would.
        self._rescue_share = column(np.where(costs.space.device_only, 1.0, fallback / np.maximum(costs.accuracy, 1e-3)))
        self._best = float(costs.worth.max())

    def finish(self, out: Float32s, row: _Row, reserve_s: Number) -> None:
        """Count (B, C, F) per frame and write the promises, which rest on the other features."""
        out[..., _INTERVAL] = (self._interval - 1.0) * 0.5
        out[..., _OCCUPANCY] -= self._interval - 1.0
        out[..., _LINK_OCCUPANCY] -= self._interval - 1.0
        out[..., _ENERGY] /= self._interval
        late = np.maximum(out[..., _OCCUPANCY], 0.0) + np.maximum(out[..., _LINK_OCCUPANCY], 0.0)
        charge = 10.0 * _DELAY_PENALTY * late / self._interval + out[..., _ENERGY]
        headroom = _rows(_HEADROOM_FRAC * (1.0 - row.frame_age_s / row.deadline_s))
        reserve = _rows(reserve_s / row.deadline_s) * self._sent
        frames = _rows(row.deadline_s / row.capture_period_s)
        for estimate in range(len(BANDWIDTHS)):
            slack = out[..., _SLACK + estimate]
            on_time = slack > headroom
            answer = 1.0 - slack - reserve  # in deadlines
            value = self._score(on_time, np.where(on_time | (self._sent == 0), answer, 1.0) * frames) / self._interval
            out[..., _PROMISE + estimate] = 10.0 * (value - self._best) - charge

    def _score(self, on_time: Any, answer_frames: Float32s) -> Float32s:
        """(B, C) score of all frames of the decision, when the answer takes so many frame intervals."""
        skipped = np.broadcast_to(self._skipped, answer_frames.shape).copy()
        for place, loss in enumerate(self._losses, start=1):
            skipped -= loss * (answer_frames > place)
        return np.where(on_time, self._own + skipped, self._rescue + self._rescue_share * skipped)


def _rows(value: Number) -> Float32s:
    """A number, or numbers (B,), against candidates."""
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
    """(entries, (basis + 1) * F) that puts every entry in its place, and -1 where slack meets what is blocked."""
    width = len(CANDIDATE_FEATURES)
    scatter = np.zeros((len(_ENTRIES), (len(_BASIS) + 1) * width), np.float32)
    scatter[np.arange(len(_ENTRIES)), _ENTRIES_FLAT] = 1.0
    blocked = len(_BASIS) * width
    scatter[0, blocked + _SLACK : blocked + _PROMISE] = -1.0  # the first entry is 1
    return scatter


_SCATTER = _scatter()


def _charge(features: Float32s) -> Float32s:
    """What each candidate of (..., C, F) costs in tenths of utility: energy, and the frames it delays."""
    charge: Float32s = np.maximum(features[..., _OCCUPANCY], 0.0)
    charge += np.maximum(features[..., _LINK_OCCUPANCY], 0.0)
    charge *= 10.0 * _DELAY_PENALTY
    charge += features[..., _ENERGY]
    return charge


def _backlog(s: _Row, bandwidths: list[Number]) -> Number:
    """Time the uplink needs for own bytes under the mean, in deadlines. What the head does not hide of it blocks."""
    return s.uplink_backlog_bytes * 8.0 / bandwidths[_MEAN] / s.deadline_s


def _context(kind: _Kind, s: _Row, bandwidths: list[Number]) -> list[Number]:
    last, mean, least = (kind.log10(bandwidths[i]) - 6.0 for i in (0, _MEAN, -1))
    per_deadline = 1.0 / s.deadline_s
    return [
        last,
        mean,
        least,
        mean - least,
        last - mean,
        s.uplink_age_s * per_deadline,
        kind.log10(s.uplink_age_s + _LEAST_AGE_S),
        _backlog(s, bandwidths),
        s.in_flight,
        s.queued_frames,
        s.frame_age_s * per_deadline,
        kind.log10(s.device_slowdown),
        kind.log10(s.mec_slowdown),
        s.mec_queue_s * per_deadline,
        s.mec_queue_mean_s * per_deadline,
        s.mec_age_s,
        s.rtt_s * per_deadline,
        kind.log10(s.deadline_s) + 1.0,
        s.capture_period_s * per_deadline,
        s.on_time_frac,
        s.fallback_frac,
        s.link_up,
    ]


def _pack(columns: list[Number], out: Float32s) -> None:
    """Write n numbers, or n arrays (B,), into ``out`` (B, n)."""
    if len(out) == 1:
        out[0] = columns
        return
    out[...] = np.array(columns, np.float32).T
