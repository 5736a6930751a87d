"""The bandwidth states of Edgent's configuration map, and how they are learned from traces.

Training traces are cut at their change points, by the detector that also runs online. How far bandwidth strays from
its mean between two change points depends more on the kind of link than on its level. So the segments are sorted by
standard deviation into spread classes, and each class keeps five quantiles of log bandwidth around the segment mean.
The level is a step on a logarithmic scale, so that a share of a link is served as well as all of it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from controller.controllers.changepoint import ChangeDetector, Prior
from controller.errors import UsageError
from controller.predict.uplink import FLOOR_BPS, TraceBank
from controller.records import Bools, Floats, Ints

#: Factor between two levels.
LEVEL_STEP = 1.2
#: Each class is five equally likely bandwidths, at the middles of the fifths.
QUANTILES = np.array([0.1, 0.3, 0.5, 0.7, 0.9])
_CLASSES = 3
_WINDOW_STEPS = 256
_STEP_S = 1.0  # as traces are recorded
_MIN_SEGMENT = 5
_VARIANCE_BELIEF = 2.0  # alpha of the prior: the variance counts as if it came from four values


@dataclass(frozen=True)
class BandwidthStates:
    """Spread classes, least spread first, and the prior of the detector; all in natural logarithms of bit/s."""

    std: Floats  # (S,) median standard deviation of the segments
    deviations: Floats  # (S, Q) quantiles around the segment mean
    prior: Prior

    @classmethod
    def from_tuning(cls, tuning: Mapping[str, Any]) -> BandwidthStates:
        """Inverse of ``as_tuning``; UsageError for anything else."""
        try:
            std, deviations = np.array(tuning["std"], float), np.array(tuning["deviations"], float)
            prior = Prior(**tuning["prior"])
        except (KeyError, TypeError, ValueError) as error:
            raise UsageError(f"bandwidth states: got {error}; expected std, deviations and prior") from None
        if std.ndim != 1 or deviations.shape != (len(std), len(QUANTILES)) or not (std > 0).all():
            raise UsageError(f"bandwidth states: got {deviations.shape}; expected ({len(std)}, {len(QUANTILES)})")
        return cls(std, deviations, prior)

    def as_tuning(self) -> dict[str, Any]:
        """As plain numbers and lists, for a JSON file."""
        prior = self.prior
        return {
            "std": self.std.tolist(),
            "deviations": self.deviations.tolist(),
            "prior": {"mean": prior.mean, "kappa": prior.kappa, "alpha": prior.alpha, "beta": prior.beta},
        }

    def spread_class(self, std: Floats) -> Ints:
        """(B,) class with the nearest standard deviation on a logarithmic scale; ``std`` (B,)."""
        gap = np.abs(np.log(np.maximum(std, 1e-9))[:, None] - np.log(self.std))
        return np.asarray(gap.argmin(axis=1))


def level_index(log_bps: Floats) -> Ints:
    """(B,) level, a step of the logarithmic scale, of each log bandwidth (B,)."""
    return np.asarray(np.rint(log_bps / math.log(LEVEL_STEP)), dtype=np.int64)


def level_log_bps(index: Ints) -> Floats:
    """(B,) log bandwidth of each level (B,)."""
    return np.asarray(index * math.log(LEVEL_STEP))


def default_states() -> BandwidthStates:
    """States without training traces: normal deviations of 10, 20 and 40 %, as LTE uplinks have between two changes."""
    std = np.array([0.1, 0.2, 0.4])
    normal = np.array([-1.2816, -0.5244, 0.0, 0.5244, 1.2816])  # quantiles of the standard normal at QUANTILES
    return BandwidthStates(std, std[:, None] * normal, _prior(math.log(1e6), 0.2**2, 1.5**2))


def learn_states(bank: TraceBank, share_frac: tuple[float, float] = (1.0, 1.0), seed: int = 0) -> BandwidthStates:
    """States of the links in ``bank``, for devices that get a share of them within ``share_frac`` (log-uniform).

    UsageError if no trace has a segment of several seconds without a change.
    """
    log_bps, known = _windows(bank)
    low, high = np.log(share_frac)
    log_bps = log_bps + np.random.default_rng(seed).uniform(low, high, (len(log_bps), 1))
    step_var = float(np.median(np.diff(log_bps, axis=1)[known[:, 1:]] ** 2)) / 2 / 0.455  # median of chi-squared 1
    mean, between = float(log_bps[known].mean()), float(log_bps[known].var())
    within = max(step_var, 0.05**2)
    prior = _prior(mean, within, max(between, within))
    segments = _segments(log_bps, known, prior)
    if not segments:
        raise UsageError(f"no trace has {_MIN_SEGMENT} s without a change; expected longer traces to learn states from")
    return _classes(segments, prior)


def _prior(mean: float, within_var: float, between_var: float) -> Prior:
    return Prior(mean, within_var / between_var, _VARIANCE_BELIEF, _VARIANCE_BELIEF * within_var)


def _windows(bank: TraceBank) -> tuple[Floats, Bools]:
    """(n, steps) log bit/s of windows of the traces, sampled once a second, and whether each entry is within its
    trace."""
    pairs = [(i, s) for i, d in enumerate(bank.duration_s) for s in np.arange(0.0, d, _WINDOW_STEPS * _STEP_S)]
    trace, start = np.array([i for i, _ in pairs]), np.array([s for _, s in pairs])
    t = start[:, None] + (np.arange(_WINDOW_STEPS) + 0.5) * _STEP_S
    known = t <= bank.duration_s[trace][:, None]
    rate = bank.rate_bps(np.broadcast_to(trace[:, None], t.shape), t)
    return np.log(np.maximum(rate, FLOOR_BPS)), known


def _segments(log_bps: Floats, known: Bools, prior: Prior) -> list[Floats]:
    """Segments between change points, in log bit/s."""
    detector = ChangeDetector(prior, len(log_bps))
    begins = np.zeros(log_bps.shape, dtype=np.bool_)
    for step in range(log_bps.shape[1]):
        changed = np.flatnonzero(detector.update(log_bps[:, step], known[:, step]))
        began = step - detector.run_length[changed] + 1
        begins[changed, np.maximum(began, 0)] = True
    segments: list[Floats] = []
    for row, inside in enumerate(known):
        cuts = np.flatnonzero(begins[row])
        segments += [s for s in np.split(log_bps[row, inside], cuts[cuts < inside.sum()]) if len(s) >= _MIN_SEGMENT]
    return segments


def _classes(segments: list[Floats], prior: Prior) -> BandwidthStates:
    """Spread classes of equally many segments each."""
    std = np.array([max(segment.std(), 1e-3) for segment in segments])
    parts = [part for part in np.array_split(np.argsort(std), _CLASSES) if len(part)]
    centred = [np.concatenate([segments[i] - segments[i].mean() for i in part]) for part in parts]
    return BandwidthStates(
        np.array([np.median(std[part]) for part in parts]),
        np.array([np.quantile(values, QUANTILES) for values in centred]),
        prior,
    )
