"""Metrics over frames, and how sure they are.

Every metric is a ratio of two sums over frames, listed in ``METRICS``. The daemon's summary, the twin and live
comparisons all take their figures from that one list: the daemon keeps the sums of its run, a comparison keeps them per
episode. A comparison's mean is the ratio of the sums over all episodes. An episode thus weighs as much as it has frames
that the metric is about, and one that has none does not count. Absent is NaN here and null in JSON, never 0.

Every frame is exactly one of in time, reused, late and dropped (``controller.records.ENDINGS``).

======================  ========================================================================================
metric                  meaning
======================  ========================================================================================
``utility``             mean over all frames (``controller.utility``)
``in_time_frac``        share of all frames that were run and answered before the deadline: ok or fallback
``reused_frac``         share of all frames that were not run; an earlier answer stands for them (``controller.reuse``)
``skipped_frac``        the part of these that a decision's frame stride skipped; ``filtered_frac`` and ``cached_frac``
                        are the parts of the other reasons, each there only where such a frame occurred
``late_frac``           share of all frames that were run, but answered after the deadline or never
``dropped_frac``        share of all frames that never started because the queue was full
``fallback_frac``       share of all frames answered in time by the local fallback; part of ``in_time_frac``
``unanswered_frac``     share of all frames that were run and never answered; part of ``late_frac``
``slo_attainment``      "deadline met": in time / (run or dropped). Reused answers do not count
``accuracy``            mean score of the frames in time
``reused_accuracy``     mean score that reused answers have on the frames that they stand for
``streaming_accuracy``  mean score of the newest answer out at each capture (``controller.streaming``); streams only
``goodput_fps``         frames in time per second of camera time
``energy_j``            modelled energy per frame
``payload_kbytes``      mean bytes sent per frame, in units of 1000
``run_as``              of the frames that were run, whatever became of them: shares of device-only, split and
                        offload, by the decision that was carried out
``answered_on``         of the frames that were run and answered, late ones included: shares by who answered, the
                        device as decided, device and MEC (split), the MEC, or the device in the MEC's place (fallback)
``latency_ms``          percentiles of capture to answer over the frames that were run and answered
======================  ========================================================================================

Episodes are the units of the bootstrap. Two controllers that ran the same episodes are compared by the interval of the
paired difference.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from statistics import NormalDist
from typing import Any

import numpy as np

from controller.errors import UsageError
from controller.forecast import Forecaster
from controller.records import ENDINGS, KINDS, SIDES, STATUSES, Bools, Floats, Ints, Outcome, Status
from controller.reuse import REASONS
from controller.streaming import Score, streaming_scores

RESAMPLES = 10_000
LEVEL = 0.95
PERCENTILES = {"p50": 50.0, "p95": 95.0, "p99": 99.0}
#: Who answers frames: a side of the decision, the device in the MEC's place, or an exit on the way of a gated decision.
EARLY_EXIT = "early exit"
ANSWERERS = (*SIDES, "fallback", EARLY_EXIT)
#: Number of no answerer, and of no kind of decision.
NOBODY, NO_KIND = -1, -1
#: Names of the sums of frames that were run with each kind of decision, and of those that each of them answered.
_RUN_AS = tuple(f"run as {name}" for name in KINDS)
_ANSWERED = tuple(f"answered on {name}" for name in ANSWERERS)

#: Sums over frames.
Sums = Mapping[str, Floats]

#: Each metric as (numerator, denominator), both names of sums.
METRICS = {
    "utility": ("utility", "frames"),
    "in_time_frac": ("in_time", "frames"),
    "reused_frac": ("reused", "frames"),
    **{f"{reason.value}_frac": (reason.value, "frames") for reason in REASONS},
    "late_frac": ("late", "frames"),
    "dropped_frac": ("dropped", "frames"),
    "fallback_frac": ("fallback", "frames"),
    "unanswered_frac": ("unanswered", "frames"),
    "slo_attainment": ("in_time", "run_or_dropped"),
    "accuracy": ("score_in_time", "in_time"),
    "reused_accuracy": ("score_reused", "reused"),
    "streaming_accuracy": ("streaming", "frames"),
    "goodput_fps": ("in_time", "camera_s"),
    "energy_j": ("energy_j", "frames"),
    "payload_kbytes": ("payload_kbytes", "frames"),
}
STREAMING = "streaming_accuracy"
#: Metrics that are left out where no frame has that reason. Frame strides are everywhere, so theirs always stands.
_RARE = {f"{reason.value}_frac": reason.value for reason in REASONS if reason is not Status.SKIPPED}
#: Every sum that there is.
SUMS = tuple(dict.fromkeys([name for pair in METRICS.values() for name in pair] + [*_RUN_AS, *_ANSWERED]))


def _by_status(field: str) -> Bools:
    return np.array([getattr(ENDINGS[status], field) for status in STATUSES])


_ON_TIME, _RAN, _REUSED = (_by_status(field) for field in ("on_time", "ran", "reused"))
_FALLBACK = STATUSES.index(Status.FALLBACK)


@dataclass(frozen=True)
class Frames:
    """One row per frame, (N,) each."""

    episode: Ints  # number of the episode (and seed) that the frame belongs to
    status: Ints  # number in STATUSES
    kind: Ints  # number in KINDS of the decision that was carried out; NO_KIND for a frame that was not run
    answered_by: Ints  # number in ANSWERERS; NOBODY for a frame that was not run or never answered
    utility: Floats
    score: Floats
    latency_s: Floats  # infinite for a frame that was not run or never answered
    payload_bytes: Floats
    energy_j: Floats
    capture_period_s: Floats
    streaming: Floats  # score of the newest answer that was out at the capture; NaN where frames are no stream

    @property
    def in_time(self) -> Bools:
        return np.asarray((_ON_TIME & _RAN)[self.status])

    @property
    def late(self) -> Bools:
        return np.asarray((_RAN & ~_ON_TIME)[self.status])

    @property
    def reused(self) -> Bools:
        return np.asarray(_REUSED[self.status])

    @property
    def dropped(self) -> Bools:
        return np.asarray(~(_RAN | _REUSED)[self.status])

    @property
    def fallback(self) -> Bools:
        return np.asarray(self.status == _FALLBACK)

    @property
    def answered(self) -> Bools:
        """Run and answered, in time or late."""
        return np.asarray(self.answered_by != NOBODY)

    @classmethod
    def from_outcomes(
        cls,
        outcomes: Sequence[Outcome],
        capture_period_s: float,
        episode: int = 0,
        score: Score | None = None,
        forecaster: Forecaster | None = None,
    ) -> Frames:
        """The frames of one live run. A frame that was given up has no prediction and counts as not answered.

        ``score`` compares a prediction with the truth of a later frame; None where samples are no stream.
        ``forecaster``: a new one, if a viewer sees forecasts.
        """
        answered_by = np.array([_answerer(outcome) for outcome in outcomes], dtype=np.int8)
        latency_s = np.array([o.latency_ms for o in outcomes]) / 1e3
        return cls(
            episode=np.full(len(outcomes), episode),
            status=np.array([STATUSES.index(o.status) for o in outcomes], dtype=np.int8),
            kind=np.array([_kind(outcome) for outcome in outcomes], dtype=np.int8),
            answered_by=answered_by,
            utility=np.array([o.utility for o in outcomes], dtype=float),  # NaN where no truth is known
            score=np.array([o.score for o in outcomes], dtype=float),
            latency_s=np.where(answered_by == NOBODY, np.inf, latency_s),
            payload_bytes=np.array([o.payload_bytes for o in outcomes], dtype=float),
            energy_j=np.array([o.energy_j for o in outcomes]),
            capture_period_s=np.full(len(outcomes), capture_period_s),
            streaming=np.full(len(outcomes), np.nan)
            if score is None
            else streaming_scores(outcomes, capture_period_s, score, forecaster),
        )


def _kind(outcome: Outcome) -> int:
    if outcome.decision is None or not outcome.status.ran:
        return NO_KIND
    return KINDS.index(outcome.decision.kind)


def _answerer(outcome: Outcome) -> int:
    if outcome.prediction is None or not outcome.status.ran:
        return NOBODY
    if outcome.early_exit is not None:
        return ANSWERERS.index(EARLY_EXIT)
    side = "device" if outcome.decision is None else outcome.decision.side
    # An answer from the MEC took time there; without, the device answered in its place, perhaps too late.
    in_its_place = side != "device" and outcome.breakdown_ms.tail == 0
    fell_back = outcome.status is Status.FALLBACK or (outcome.status is Status.LATE and in_its_place)
    return ANSWERERS.index("fallback" if fell_back else side)


@dataclass(frozen=True, slots=True)
class Interval:
    """A mean with its bootstrap interval. Without a value the mean is NaN; with a single one the bounds are."""

    mean: float
    low: float
    high: float

    def as_json(self) -> dict[str, Any]:
        return {"mean": known(self.mean), "ci95": [self.low, self.high] if self.is_known else None}

    @property
    def is_known(self) -> bool:
        """Whether there are bounds: more than one value."""
        return not math.isnan(self.low)

    @property
    def excludes_zero(self) -> bool:
        return self.low > 0 or self.high < 0


def known(figure: float) -> float | None:
    """A figure as JSON has it: None where there is none."""
    return None if math.isnan(figure) else float(figure)


def episode_sums(frames: Frames) -> dict[str, Floats]:
    """The sums behind every metric, (E,) each, episodes in ascending order."""
    _, group = np.unique(frames.episode, return_inverse=True)
    count = np.bincount(group).astype(float)

    def total(values: Floats | Bools) -> Floats:
        return np.asarray(np.bincount(group, weights=values, minlength=len(count)), dtype=float)

    def score(some: Bools) -> Floats:
        return total(np.where(some, frames.score, 0.0))

    in_time, reused = frames.in_time, frames.reused
    return {
        "frames": count,
        "run_or_dropped": count - total(reused),
        "in_time": total(in_time),
        "reused": total(reused),
        **{reason.value: total(frames.status == STATUSES.index(reason)) for reason in REASONS},
        "late": total(frames.late),
        "dropped": total(frames.dropped),
        "fallback": total(frames.fallback),
        "unanswered": total(frames.late & ~frames.answered),
        "utility": total(frames.utility),
        "score_in_time": score(in_time),
        "score_reused": score(reused),
        "streaming": total(frames.streaming),
        "camera_s": total(frames.capture_period_s),
        "energy_j": total(frames.energy_j),
        "payload_kbytes": total(frames.payload_bytes) / 1e3,
        **{name: total(frames.kind == number) for number, name in enumerate(_RUN_AS)},
        **{name: total(frames.answered_by == number) for number, name in enumerate(_ANSWERED)},
    }


def ratios(sums: Sums) -> dict[str, Floats]:
    """Every metric from its sums, one number or (E,) alike; NaN where a denominator is 0.

    The share of a reason that occurred nowhere is left out.
    """
    absent = {name for name, reason in _RARE.items() if not np.any(sums[reason])}
    return {name: _ratio(sums[above], sums[below]) for name, (above, below) in METRICS.items() if name not in absent}


def _ratio(above: Floats, below: Floats) -> Floats:
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.asarray(np.where(below > 0, np.divide(above, below), np.nan))


def per_episode(frames: Frames) -> dict[str, Floats]:
    """Every metric but latency and shares, (E,) each, episodes in ascending order; NaN where there is none."""
    return ratios(episode_sums(frames))


def overall(frames: Frames) -> dict[str, float]:
    """Every metric but latency and shares, over all frames of all episodes; NaN where there is none."""
    sums = {name: np.asarray(values.sum()) for name, values in episode_sums(frames).items()}
    return {name: float(figure) for name, figure in ratios(sums).items()}


def run_as(sums: Sums) -> dict[str, float] | None:
    """Shares of the run frames by the kind of the decision that was carried out; None when none was run."""
    return _shares(sums, KINDS, _RUN_AS)


def answered_on(sums: Sums) -> dict[str, float] | None:
    """Shares of the run and answered frames by who answered; None when none was answered. Early exits are left out
    where none answered, as everywhere without a gate."""
    shares = _shares(sums, ANSWERERS, _ANSWERED)
    return shares and {name: share for name, share in shares.items() if share or name != EARLY_EXIT}


def _shares(sums: Sums, names: Sequence[str], counted: Sequence[str]) -> dict[str, float] | None:
    """By name, the shares of the sums ``counted`` in their total; None when that is 0."""
    counts = [float(np.sum(sums[name])) for name in counted]
    return {name: n / sum(counts) for name, n in zip(names, counts, strict=True)} if sum(counts) else None


def latency_percentiles_ms(frames: Frames) -> dict[str, float | None]:
    """Percentiles over the frames that were run and answered, of all episodes; None when none was."""
    latency_ms = frames.latency_s[frames.answered] * 1e3
    if not len(latency_ms):
        return dict.fromkeys(PERCENTILES)
    return {name: float(np.percentile(latency_ms, at)) for name, at in PERCENTILES.items()}


def bootstrap(values: Floats, seed: int = 0, resamples: int = RESAMPLES, weights: Floats | None = None) -> Interval:
    """Mean and interval of independent values (E,), or of (S, E) where both seeds and episodes are samples.

    One dimension: bias-corrected and accelerated (BCa; Efron, JASA 1987). Two: both axes are resampled and the
    percentiles taken, which leaves no axis fixed (Owen, Annals of Applied Statistics 2007: slightly wide).
    With ``weights`` of the same shape the mean is weighted, a ratio of two sums. A NaN has no weight.
    """
    values = np.asarray(values, dtype=float)
    if values.ndim not in (1, 2) or not values.size:
        raise UsageError(f"bootstrap: got values of shape {values.shape}; expected (episodes,) or (seeds, episodes)")
    weight = np.where(np.isfinite(values), 1.0 if weights is None else weights, 0.0)
    above = np.where(weight > 0, values, 0.0) * weight
    if not weight.any():
        return Interval(math.nan, math.nan, math.nan)
    mean = float(above.sum() / weight.sum())
    if np.count_nonzero(weight) == 1:
        return Interval(mean, math.nan, math.nan)
    means = _resampled_ratio(above, weight, seed, resamples)
    levels = _TAILS if values.ndim == 2 else _bca_levels(above, weight, means)
    return Interval(mean, *_quantiles(means, levels))


def _resampled_ratio(above: Floats, below: Floats, seed: int, resamples: int) -> Floats:
    """(resamples,) or fewer, where the sum below is 0 in some: the ratio of the two sums in each resample."""
    means = _resampled(above, seed, resamples)
    if (below == below.flat[0]).all():  # a plain mean, which most metrics are, takes half of the time
        return np.asarray(means / below.flat[0])
    totals = _resampled(below, seed, resamples)
    return np.asarray(means[totals > 0] / totals[totals > 0])


def _resampled(values: Floats, seed: int, resamples: int) -> Floats:
    """(resamples,) mean of the values (E,) or (S, E) in each resample."""
    if values.ndim == 1:
        return np.asarray(_weights(seed, 0, len(values), resamples) @ values)
    seeds, episodes = (_weights(seed, axis, count, resamples) for axis, count in enumerate(values.shape))
    return np.asarray(((seeds @ values) * episodes).sum(axis=1))


def gap_closed(values: Floats, reference: Floats, oracle: Floats, seed: int = 0) -> Interval:
    """Share of the way from the reference's mean to the oracle's that ``values`` goes, over the same episodes (E,).

    A ratio of means, so its interval is the percentile interval of the resampled ratio.
    """
    gained, gap = np.asarray(values) - reference, np.asarray(oracle) - reference
    weights = _weights(seed, 0, len(gained), RESAMPLES)
    above, below = weights @ gained, weights @ gap
    if not gap.mean():
        return Interval(math.nan, math.nan, math.nan)
    ratio = above[below != 0] / below[below != 0]
    return Interval(float(gained.mean() / gap.mean()), *_quantiles(ratio, _TAILS))


_TAILS = ((1 - LEVEL) / 2, (1 + LEVEL) / 2)


@lru_cache(maxsize=3)  # one report asks hundreds of times for the same few, and drawing them is all the work
def _weights(seed: int, axis: int, count: int, resamples: int) -> Floats:
    """(resamples, count) share that each value has in each resample: drawing with replacement, counted."""
    rng = np.random.default_rng((seed, axis))
    weights = rng.multinomial(count, np.full(count, 1.0 / count), size=resamples) / count
    weights.flags.writeable = False
    return np.asarray(weights)


def _bca_levels(above: Floats, below: Floats, means: Floats) -> tuple[float, float]:
    """Quantiles of the resampled ratios of two sums that correct for bias and skew."""
    rest = below.sum() - below
    if len(above) < 2 or not rest.all():
        return _TAILS
    jackknife = (above.sum() - above) / rest
    deviation = jackknife.mean() - jackknife
    scale = float((deviation**2).sum())
    if scale == 0.0:
        return _TAILS
    mean = float(above.sum() / below.sum())
    acceleration = float((deviation**3).sum()) / (6.0 * scale**1.5)
    normal = NormalDist()
    share = float((means < mean).mean() + (means == mean).mean() / 2)
    bias = normal.inv_cdf(min(max(share, 1.0 / len(means)), 1.0 - 1.0 / len(means)))

    def level(tail: float) -> float:
        z = bias + normal.inv_cdf(tail)
        return normal.cdf(bias + z / (1.0 - acceleration * z))

    return level(_TAILS[0]), level(_TAILS[1])


def _quantiles(means: Floats, levels: tuple[float, float]) -> tuple[float, float]:
    low, high = np.quantile(means, levels)
    return float(low), float(high)
