"""The formula of the features: one state, candidate by candidate, on plain numbers.

It is double precision until the result is stored. ``envs.twin.features`` compiles it for the twin's batches. The
device has one state at a time and uses the array operations of ``controller.features.fast``; a test
compares the two, and another holds the slack against the latency model that the other controllers calculate with.

Two choices are the features' own: the backlog of the uplink drains at the mean bandwidth under all four estimates, and
times stray from what is predicted by a log-logistic factor, because its distribution needs no logarithm.

The value of a candidate is its expected utility per frame over in time and not in time, as the timeline of
docs/architecture.md has it: a fallback takes device time, and a reply that comes too late is given up. Delays of the
next frames cost DELAY_PENALTY. At the last moment a device waits for the reply if that is worth more than a fallback
(``controller.waiting``), so the value is the larger one of both plans. The best candidate by it, with no learning, is a
strong rule.

``s`` is a state: any record with the fields of SystemState as plain numbers; ``age`` its ``reference_age``, empty where
that is None. Where rows are gated, each of their paths (``controller.gates``) has features like a row of its own, and
those of the row are the mean over its paths.

Shapes: C candidates, P paths that end at an exit on the way, D context features, F candidate features, K skipped frames
at most.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np

from controller.costs import CostTable
from controller.features.schema import BANDWIDTHS, CANDIDATE_FEATURES, FEATURE_SCHEMA
from controller.predict.uplink import FLOOR_BPS
from controller.records import UPLINK_HISTORY, Float32s, Floats, Ints
from controller.references import NO_STREAM
from controller.timeline import GIVE_UP_DEADLINES, fallback_reserve_s
from controller.utility import Utility

#: The "hopeful" estimate weighs each uplink sample half as much as the next newer one, and doubles with every
#: RECOVERY_S without a new sample. Only sending shows bandwidth, so a device that gave up on the uplink must come
#: to try it again.
RECOVERY_S = 3.0
MOST_DOUBLINGS = 10.0
HISTORY_WEIGHTS = (*(0.5 ** (i + 1) for i in range(UPLINK_HISTORY - 1)), 0.5 ** (UPLINK_HISTORY - 1))  # sum: one
#: The value loses this much utility for each capture period by which the candidate delays the next frames.
DELAY_PENALTY = 0.4
#: Shapes of the log-logistic distributions: like log-normal ones with deviations of 0.28 (replies) and 0.07 (device).
REPLY_SHAPE, DEVICE_SHAPE = 6, 24
#: So much more time than predicted is as good as certain to suffice; bounds the powers in float32.
MOST_RATIO = 8.0
LEAST_S = 1e-6
#: Keeps the logarithm of a sample's age finite.
LEAST_AGE_S = 0.01
#: Differences of pictures and speeds (heights per frame) that count as usual, and what keeps their logarithms finite.
#: On the validation frames of campus, pictures one to five frames apart differ by 0.004 to 0.034, and people move by
#: 0.034 to 0.061 heights per frame (5th to 95th percentiles).
USUAL_MOTION, LEAST_MOTION = 0.01, 1e-4
USUAL_SPEED, LEAST_SPEED = 0.05, 0.002
MEAN = BANDWIDTHS.index("mean8")
#: Where slack, chance and value of the first estimate stand; those of the others follow.
SLACK = CANDIDATE_FEATURES.index(f"slack_{BANDWIDTHS[0]}")
CHANCE = CANDIDATE_FEATURES.index(f"chance_{BANDWIDTHS[0]}")
VALUE = CANDIDATE_FEATURES.index(f"value_{BANDWIDTHS[0]}")

_ESTIMATES = len(BANDWIDTHS)
_LOW, _HIGH = FEATURE_SCHEMA.low, FEATURE_SCHEMA.high


class FeatureTable(NamedTuple):
    """Columns (C + P,) of a cost table and its paths, unless said otherwise."""

    rows: int  # C
    end_frac: Floats  # (C,) share of frames that no exit on the way answers
    early_row: Ints  # (P,) of the cost table, to which a path belongs that ends early
    early_frac: Floats  # (P,) share of its frames
    above_best: Floats  # accuracy per frame less the best of the table, in tenths
    sent: Floats  # 1 where the MEC is asked, else 0
    head_s: Floats
    mec_s: Floats
    bits: Floats  # of the message in the steady state
    bits_by_age: Floats  # (C, columns) for each column of ``controller.references``
    column_of_age: Ints  # the column for each age of a reference; the last one holds for all older ones
    stream: Ints  # in which a row sends; NO_STREAM where its payloads stand alone
    stride: Floats
    per_frame: Floats  # one over the stride
    accuracy: Floats
    #: (K + 1, C) expected score of the skipped frames when the answer comes after the capture of 0, 1, ... of them.
    skipped_score: Floats
    rescued_score: Floats  # (K + 1, C) of all frames, when the fallback answers then
    best: float  # accuracy per frame of the table
    fastest_local_s: float
    compute_cost: float  # a second of device time, in tenths of utility
    radio_cost: float  # a second of transmission, likewise


def feature_table(costs: CostTable, utility: Utility) -> FeatureTable:
    """The columns that the features need."""
    gates, rows = costs.gates, len(costs)
    end_frac = np.ones(rows) if gates is None else np.array(gates.end_frac)
    early_row, early_frac = (np.zeros(0, np.int64), np.zeros(0)) if gates is None else (gates.row, gates.frac)
    best, cost = float(costs.accuracy_per_frame.max()), 10.0 * utility.energy_weight_per_j
    costs = costs.paths
    skipped_score, rescued_score = scores_by_place(costs)
    return FeatureTable(
        rows=rows,
        end_frac=end_frac,
        early_row=np.array(early_row),
        early_frac=np.array(early_frac),
        above_best=10.0 * (costs.accuracy_per_frame - best),
        sent=(~costs.space.device_only).astype(float),
        head_s=np.array(costs.head_s),
        mec_s=np.array(costs.mec_s),
        bits=costs.uplink_bytes * 8.0,
        bits_by_age=costs.uplink_bytes_by_age * 8.0,
        column_of_age=np.array(costs.column_of_age),
        stream=np.array(costs.stream),
        stride=np.array(costs.stride),
        per_frame=1.0 / costs.stride,
        accuracy=np.array(costs.accuracy),
        skipped_score=skipped_score,
        rescued_score=rescued_score,
        best=best,
        fastest_local_s=float(costs.fastest_local_s),
        compute_cost=float(cost * utility.compute_power_w),
        radio_cost=float(cost * utility.radio_power_w),
    )


def scores_by_place(costs: CostTable) -> tuple[Floats, Floats]:
    """Expected scores (K + 1, C) when an answer comes after the capture of 0, 1, ... skipped frames: of the skipped
    frames if it is the row's own, of all frames if it is the fallback's."""
    losses = np.array([np.zeros(len(costs)), *costs.stale_losses])
    skipped = costs.skipped_score - losses.cumsum(axis=0)
    return skipped, costs.rescued_accuracy + costs.rescued_share * skipped


class StateTerms(NamedTuple):
    """What the features of all candidates share. Quotients, because a division takes longer than all else."""

    slowdown: float  # of the device
    mec_slowdown: float
    age_s: float
    deadline_s: float
    per_deadline: float  # one over it
    per_period: float  # one over the capture period
    per_bit: tuple[float, float, float, float]  # seconds that a bit takes under each estimate
    backlog_s: float  # until the uplink has sent own bytes, under the mean
    wait_s: float  # queue of the MEC and round trip
    reserve_s: float  # how long before the deadline a fallback begins
    fallback_s: float  # what it takes
    deadline_place: int  # skipped frames that are captured before the deadline


def fill_features(t: FeatureTable, s: Any, age: Ints, context: Float32s, candidates: Float32s) -> None:
    """Write the features of one state into ``context`` (D,) and ``candidates`` (C + P, F), of which the first C rows
    count."""
    bandwidths = estimates(s)
    fill_context(s, bandwidths, t.best, context)
    terms = state_terms(t, s, bandwidths)
    for c in range(len(candidates)):
        fill_candidate(t, terms, c, bits_now(t, age, c), candidates[c])
    if len(t.early_row) > 0:
        average_paths(t, candidates)


def average_paths(t: FeatureTable, candidates: Float32s) -> None:
    """Make the features of gated rows means over their paths."""
    for c in range(t.rows):
        if t.end_frac[c] < 1.0:
            for i in range(candidates.shape[1]):
                candidates[c, i] *= t.end_frac[c]
    for p in range(len(t.early_row)):
        for i in range(candidates.shape[1]):
            candidates[t.early_row[p], i] += t.early_frac[p] * candidates[t.rows + p, i]


def bits_now(t: FeatureTable, age: Ints, c: int) -> float:
    """Bits of the message of candidate ``c`` with the references that the state tells."""
    stream = t.stream[c]
    if stream == NO_STREAM or len(age) == 0:
        return float(t.bits[c])
    return float(t.bits_by_age[c, t.column_of_age[min(age[stream], len(t.column_of_age) - 1)]])


def state_terms(t: FeatureTable, s: Any, bandwidths: tuple[float, float, float, float]) -> StateTerms:
    """The terms of one state."""
    per_bit = (1.0 / bandwidths[0], 1.0 / bandwidths[1], 1.0 / bandwidths[2], 1.0 / bandwidths[3])
    return StateTerms(
        s.device_slowdown,
        s.mec_slowdown,
        s.frame_age_s,
        s.deadline_s,
        1.0 / s.deadline_s,
        1.0 / s.capture_period_s,
        per_bit,
        s.uplink_backlog_bytes * 8.0 * per_bit[2],
        s.mec_queue_mean_s + s.rtt_s,
        fallback_reserve_s(t.fastest_local_s * s.device_slowdown),
        t.fastest_local_s * s.device_slowdown,
        _place(t, s.deadline_s / s.capture_period_s),
    )


def estimates(s: Any) -> tuple[float, float, float, float]:
    """Bandwidths in bit/s in the order of BANDWIDTHS."""
    hopeful, inverse, least = 0.0, 0.0, math.inf
    for k in range(UPLINK_HISTORY):
        bps = max(s.uplink_bps[k], FLOOR_BPS)
        hopeful += HISTORY_WEIGHTS[k] * bps
        inverse += 1.0 / bps
        least = min(least, bps)
    hopeful *= 2.0 ** min(s.uplink_age_s / RECOVERY_S, MOST_DOUBLINGS)
    return max(s.uplink_bps[0], FLOOR_BPS), hopeful, UPLINK_HISTORY / inverse, least


def fill_context(s: Any, bandwidths: tuple[float, float, float, float], best: float, out: Float32s) -> None:
    """The context features in the order of the schema. ``best``: accuracy per frame of the table."""
    last, mean = math.log10(bandwidths[0]) - 6.0, math.log10(bandwidths[2]) - 6.0
    least = math.log10(bandwidths[3]) - 6.0
    features = (
        last,
        mean,
        least,
        mean - least,
        last - mean,
        s.uplink_age_s / s.deadline_s,
        math.log10(s.uplink_age_s + LEAST_AGE_S),
        s.uplink_backlog_bytes * 8.0 / bandwidths[2] / s.deadline_s,
        float(s.in_flight),
        float(s.queued_frames),
        s.frame_age_s / s.deadline_s,
        math.log10(s.device_slowdown),
        math.log10(s.mec_slowdown),
        s.mec_queue_s / s.deadline_s,
        s.mec_queue_mean_s / s.deadline_s,
        s.mec_age_s,
        s.rtt_s / s.deadline_s,
        math.log10(s.deadline_s) + 1.0,
        s.capture_period_s / s.deadline_s,
        s.on_time_frac,
        s.fallback_frac,
        1.0 if s.link_up else 0.0,
        log_of_usual(s.motion, USUAL_MOTION, LEAST_MOTION),
        10.0 * (s.confidence - best),
        s.reused_frac,
        log_of_usual(s.tracked_speed, USUAL_SPEED, LEAST_SPEED),
    )
    for i in range(len(features)):
        out[i] = 0.0 if math.isnan(features[i]) else _clipped(features[i])


def log_of_usual(value: float, usual: float, least: float) -> float:
    """log10 of a value that is 0 or more, over the usual one."""
    return math.log10((value + least) / usual)


def fill_candidate(t: FeatureTable, s: StateTerms, c: int, bits: float, out: Float32s) -> None:
    """The features of candidate ``c``, whose message has so many bits, in the order of the schema."""
    sent, stride, per_frame = t.sent[c], t.stride[c], t.per_frame[c]
    head_s, transmit_s = s.slowdown * t.head_s[c], bits * s.per_bit[2]
    mec_s = (s.wait_s + s.mec_slowdown * t.mec_s[c]) * sent
    occupancy = (s.age_s + head_s) * s.per_period - stride
    link_occupancy = (s.backlog_s * sent + transmit_s) * s.per_period - stride
    energy = (head_s * t.compute_cost + transmit_s * t.radio_cost) * per_frame
    linear = (
        t.above_best[c],
        (stride - 1.0) * 0.5,
        sent,
        head_s * s.per_deadline,
        occupancy,
        link_occupancy,
        transmit_s * s.per_deadline,
        mec_s * s.per_deadline,
        energy,
    )
    for i in range(len(linear)):
        out[i] = _clipped(linear[i])
    begin_s = s.age_s + head_s * sent  # of what takes a random time
    rescued = sent if begin_s <= s.deadline_s - s.reserve_s else 0.0
    rescued_score = rescued * t.rescued_score[s.deadline_place, c]
    charges = Charges(rescued, rescued_score, occupancy, max(link_occupancy, 0.0), energy)
    without_fallback = Charges(0.0, 0.0, occupancy, max(link_occupancy, 0.0), energy)
    left_s = s.deadline_s - s.reserve_s * rescued - begin_s
    fixed_s = s.age_s + head_s + max(s.backlog_s - head_s, 0.0) * sent + mec_s
    due_s = s.deadline_s - s.reserve_s * sent
    for q in range(_ESTIMATES):
        total_s = fixed_s + bits * s.per_bit[q]
        chance = _chance(left_s, total_s - begin_s, sent)
        value = _value(t, s, c, charges, total_s, chance)
        if rescued > 0.0:
            longer = _chance(left_s + s.reserve_s, total_s - begin_s, sent)
            waited = _value(t, s, c, without_fallback, total_s, longer)
            if waited > value:
                chance, value = longer, waited
        out[SLACK + q] = _clipped((due_s - total_s) * s.per_deadline)
        out[CHANCE + q] = chance
        out[VALUE + q] = _squashed(value - t.best)


class Charges(NamedTuple):
    """What the values of a candidate share under all estimates."""

    rescued: float  # 1 if the fallback answers when the MEC does not, else 0
    rescued_score: float  # of all frames then
    occupancy: float  # as the feature
    link_late: float  # capture periods
    energy: float  # as the feature


def _chance(left_s: float, takes_s: float, sent: float) -> float:
    """Probability that what is expected to take ``takes_s`` is done within ``left_s``."""
    ratio = min(max(left_s / max(takes_s, LEAST_S), 0.0), MOST_RATIO)
    odds = ratio * ratio * ratio
    odds *= odds  # REPLY_SHAPE
    if sent == 0.0:
        odds *= odds
        odds *= odds  # DEVICE_SHAPE
    return odds / (1.0 + odds)


def _value(t: FeatureTable, s: StateTerms, c: int, h: Charges, total_s: float, chance: float) -> float:
    """Expected utility per frame of candidate ``c``, less the penalty of the delays that it causes."""
    missed = h.rescued * (1.0 - chance)
    known = t.sent[c] == 0.0 or total_s <= GIVE_UP_DEADLINES * s.deadline_s
    score = chance * t.accuracy[c] + missed * h.rescued_score
    if known:
        score += (1.0 - missed) * t.skipped_score[_place(t, total_s * s.per_period), c]
    late = max(h.occupancy + missed * s.fallback_s * s.per_period, 0.0) + h.link_late
    energy = 0.1 * missed * s.fallback_s * t.compute_cost
    return float((score - DELAY_PENALTY * late - energy) * t.per_frame[c] - 0.1 * h.energy)


def _place(t: FeatureTable, answer_frames: float) -> int:
    """How many skipped frames are captured before an answer that takes this many capture periods."""
    return int(max(math.ceil(min(answer_frames, len(t.skipped_score))) - 1, 0))


def _squashed(gain: float) -> float:
    """A utility relative to the best in tenths, so bent that a bad one stays above the lower bound: bad candidates
    still differ where all are bad."""
    return 10.0 * gain / (1.0 + 10.0 * gain / _LOW)


def _clipped(value: float) -> float:
    """Within the bounds of the schema."""
    return min(max(value, _LOW), _HIGH)
