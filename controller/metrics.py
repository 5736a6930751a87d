"""How well did it go, and how sure are we?

One ``Frames`` table holds what happened to every frame of every episode; each metric is first taken per episode, so
that episodes are the units of the bootstrap. Two controllers that ran the same episodes are compared by the interval
of the paired difference.

====================  ==========================================================================================
metric                meaning
====================  ==========================================================================================
``utility``           mean over all frames, dropped ones included
``slo_attainment``    share of all frames answered before the deadline (ok or fallback)
``accuracy``          mean score of the frames answered before the deadline
``goodput_fps``       frames answered before the deadline per second of the episode
``dropped_frac``      share of frames that never started
``fallback_frac``     share of frames answered by the local fallback
``skipped_frac``      share of frames that were not run, as decided for an earlier one; they are always in time
``streaming_accuracy``  mean score of the newest answer out at each capture (``controller.streaming``); of streams only
``energy_j``          modelled energy per frame
``latency_ms``        percentiles of capture to answer over all frames run and answered, late ones included
``payload_kbytes``    mean bytes sent per frame, in units of 1000
====================  ==========================================================================================
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from statistics import NormalDist
from typing import Any

import numpy as np

from controller.errors import UsageError
from controller.records import ON_TIME, Bools, Floats, Ints, Outcome, Status
from controller.streaming import Score, streaming_scores

RESAMPLES = 10_000
LEVEL = 0.95
_PERCENTILES = {"p50": 50.0, "p95": 95.0, "p99": 99.0}


@dataclass(frozen=True)
class Frames:
    """One row per frame, (N,) each."""

    episode: Ints  # number of the episode (and seed) that the frame belongs to
    utility: Floats
    score: Floats
    on_time: Bools
    dropped: Bools
    fallback: Bools
    skipped: Bools
    latency_s: Floats  # not finite for a frame that was not run or never answered
    payload_bytes: Floats
    energy_j: Floats
    frame_interval_s: Floats
    streaming: Floats  # score of the newest answer that was out at the capture; NaN where frames are no stream

    @classmethod
    def from_outcomes(
        cls, outcomes: Sequence[Outcome], frame_interval_s: float, episode: int = 0, score: Score | None = None
    ) -> Frames:
        """The frames of one live run. A frame that was given up has no prediction and counts as not answered.

        ``score`` compares a prediction with the truth of a later frame; None where samples are no stream.
        """
        answered = np.array([o.prediction is not None for o in outcomes], dtype=np.bool_)
        latency = np.array([o.latency_ms for o in outcomes]) / 1e3
        status = np.array([o.status.value for o in outcomes], dtype=object)
        return cls(
            episode=np.full(len(outcomes), episode),
            utility=np.array([o.utility for o in outcomes], dtype=float),  # NaN where no truth is known
            score=np.array([o.score for o in outcomes], dtype=float),
            on_time=np.isin(status, [s.value for s in ON_TIME]),
            dropped=status == Status.DROPPED.value,
            fallback=status == Status.FALLBACK.value,
            skipped=status == Status.SKIPPED.value,
            latency_s=np.where(answered & (status != Status.SKIPPED.value), latency, np.inf),
            payload_bytes=np.array([o.payload_bytes for o in outcomes], dtype=float),
            energy_j=np.array([o.energy_j for o in outcomes]),
            frame_interval_s=np.full(len(outcomes), frame_interval_s),
            streaming=np.full(len(outcomes), np.nan)
            if score is None
            else streaming_scores(outcomes, frame_interval_s, score),
        )


@dataclass(frozen=True, slots=True)
class Interval:
    """A mean with its bootstrap interval."""

    mean: float
    low: float
    high: float

    def as_json(self) -> dict[str, Any]:
        return {"mean": self.mean, "ci95": [self.low, self.high]}

    @property
    def excludes_zero(self) -> bool:
        return self.low > 0 or self.high < 0


def per_episode(frames: Frames) -> dict[str, Floats]:
    """Every metric but the latency percentiles, (E,) each, episodes in ascending order."""
    _, group = np.unique(frames.episode, return_inverse=True)
    count = np.bincount(group).astype(float)
    on_time = frames.on_time.astype(float)

    def total(values: Floats | Bools) -> Floats:
        return np.asarray(np.bincount(group, weights=values), dtype=float)

    answered = np.maximum(total(on_time), 1.0)  # an episode with no answer in time has accuracy 0
    metrics = {
        "utility": total(frames.utility) / count,
        "slo_attainment": total(on_time) / count,
        "accuracy": total(frames.score * on_time) / answered,
        "goodput_fps": total(on_time) / total(frames.frame_interval_s),
        "dropped_frac": total(frames.dropped) / count,
        "fallback_frac": total(frames.fallback) / count,
        "skipped_frac": total(frames.skipped) / count,
        "energy_j": total(frames.energy_j) / count,
        "payload_kbytes": total(frames.payload_bytes) / count / 1e3,
    }
    if np.isfinite(frames.streaming).all():
        metrics["streaming_accuracy"] = total(frames.streaming) / count
    return metrics


def latency_percentiles_ms(frames: Frames) -> dict[str, float]:
    """Percentiles over all answered frames of all episodes; NaN when none was answered."""
    latency = frames.latency_s[~frames.dropped & np.isfinite(frames.latency_s)] * 1e3
    if not len(latency):
        return dict.fromkeys(_PERCENTILES, float("nan"))
    return {name: float(np.percentile(latency, at)) for name, at in _PERCENTILES.items()}


def summary(frames: Frames, seed: int = 0) -> dict[str, Any]:
    """The JSON-able report of one controller: means with 95 % intervals over episodes, latency percentiles."""
    report: dict[str, Any] = {n: bootstrap(v, seed=seed).as_json() for n, v in per_episode(frames).items()}
    return report | {"latency_ms": latency_percentiles_ms(frames)}


def bootstrap(values: Floats, seed: int = 0, resamples: int = RESAMPLES) -> Interval:
    """Mean and interval of independent values (E,), or of (S, E) where both seeds and episodes are samples.

    One dimension: bias-corrected and accelerated (BCa; Efron, JASA 1987). Two: both axes are resampled and the
    percentiles taken, which leaves no axis fixed (Owen, Annals of Applied Statistics 2007: slightly wide).
    """
    values = np.asarray(values, dtype=float)
    if values.ndim not in (1, 2) or not values.size:
        raise UsageError(f"bootstrap: got values of shape {values.shape}; expected (episodes,) or (seeds, episodes)")
    mean = float(values.mean())
    if values.ndim == 2:
        seeds, episodes = (_weights(seed, axis, count, resamples) for axis, count in enumerate(values.shape))
        means = ((seeds @ values) * episodes).sum(axis=1)
        return Interval(mean, *_quantiles(means, _TAILS))
    means = _weights(seed, 0, len(values), resamples) @ values
    return Interval(mean, *_quantiles(means, _bca_levels(values, means)))


def paired_difference(values: Floats, reference: Floats, seed: int = 0) -> Interval:
    """Mean of ``values - reference`` over the same episodes, with its interval."""
    if np.shape(values) != np.shape(reference):
        raise UsageError(f"paired difference: got shapes {np.shape(values)} and {np.shape(reference)}; expected equal")
    return bootstrap(np.asarray(values) - np.asarray(reference), seed)


def gap_closed(values: Floats, reference: Floats, hindsight: Floats, seed: int = 0) -> Interval:
    """Share of the way from the reference's mean to hindsight's that ``values`` goes, over the same episodes (E,).

    A ratio of means, so its interval is the percentile interval of the resampled ratio.
    """
    gained, gap = np.asarray(values) - reference, np.asarray(hindsight) - reference
    weights = _weights(seed, 0, len(gained), RESAMPLES)
    ratio = (weights @ gained) / (weights @ gap)
    return Interval(float(gained.mean() / gap.mean()), *_quantiles(ratio, _TAILS))


_TAILS = ((1 - LEVEL) / 2, (1 + LEVEL) / 2)


@lru_cache(maxsize=3)  # one report asks hundreds of times for the same few, and drawing them is all the work
def _weights(seed: int, axis: int, count: int, resamples: int) -> Floats:
    """(resamples, count) share that each value has in each resample: drawing with replacement, counted."""
    rng = np.random.default_rng((seed, axis))
    weights = rng.multinomial(count, np.full(count, 1.0 / count), size=resamples) / count
    weights.flags.writeable = False
    return np.asarray(weights)


def _bca_levels(values: Floats, means: Floats) -> tuple[float, float]:
    """Quantiles of the resampled means that correct for bias and skew."""
    deviation = values - values.mean()
    scale = float((deviation**2).sum())
    if len(values) < 2 or scale == 0.0:
        return _TAILS
    acceleration = float((deviation**3).sum()) / (6.0 * scale**1.5)  # jackknife of a mean, in closed form
    normal = NormalDist()
    below = float((means < values.mean()).mean() + (means == values.mean()).mean() / 2)
    bias = normal.inv_cdf(min(max(below, 1.0 / len(means)), 1.0 - 1.0 / len(means)))

    def level(tail: float) -> float:
        z = bias + normal.inv_cdf(tail)
        return normal.cdf(bias + z / (1.0 - acceleration * z))

    return level(_TAILS[0]), level(_TAILS[1])


def _quantiles(means: Floats, levels: tuple[float, float]) -> tuple[float, float]:
    low, high = np.quantile(means, levels)
    return float(low), float(high)
