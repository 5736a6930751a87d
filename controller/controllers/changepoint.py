"""Detects lasting changes of the uplink, as opposed to noise.

Bayesian online change-point detection (Adams and MacKay, arXiv 0710.3742) on log bandwidth, for a batch of series at
once. Within a run the values are normal with unknown mean and variance under a normal-inverse-gamma prior, so the
predictive of each run length is a Student t (Murphy, "Conjugate Bayesian analysis of the Gaussian distribution", 2007).

The posterior is kept over the length of the run that contains the newest value: index r means r + 1 values. It is
truncated at ``runs``: the last index holds all longer runs, whose statistics forget exponentially, as if they had
``runs`` values. So counts are the same for every series, and only means and sums of squares are arrays.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from controller.errors import UsageError
from controller.records import Bools, Floats, Ints


@dataclass(frozen=True, slots=True)
class Prior:
    """Normal-inverse-gamma prior of a run, before its first value."""

    mean: float
    kappa: float  # weight of the mean: as if it came from kappa values
    alpha: float  # weight of the variance: as if it came from 2 alpha values
    beta: float  # beta / alpha is about the variance

    def __post_init__(self) -> None:
        if not min(self.kappa, self.alpha, self.beta) > 0:
            raise UsageError(f"change-point prior: got {self}; expected kappa, alpha and beta above 0")


class ChangeDetector:
    """Owns the run-length posterior of each series, and how long ago its last reported change began."""

    def __init__(self, prior: Prior, batch: int, hazard: float = 0.02, threshold: float = 0.5, runs: int = 64) -> None:
        if not (0 < hazard < 1 and 0 < threshold < 1):
            raise UsageError(f"change-point hazard {hazard}, threshold {threshold}; expected both within (0, 1)")
        self._prior, self._hazard, self._threshold = prior, hazard, threshold
        # Parameters of the t for a value that would extend run length 0 (the prior), 1, ... runs.
        self._kappa = prior.kappa + np.arange(runs + 1)
        self._alpha = prior.alpha + np.arange(runs + 1) / 2
        self._log_norm = np.array([math.lgamma(a + 0.5) - math.lgamma(a) for a in self._alpha])
        self._weight = np.zeros((batch, runs))  # posterior, all zero before the first value
        self._mean = np.full((batch, runs + 1), prior.mean)  # column 0 is the prior's, and stays
        self._beta = np.full((batch, runs + 1), prior.beta)
        self._length = np.arange(1, runs + 1)
        self._since = np.zeros(batch, dtype=np.int64)  # values since the last reported change, this one included

    def reset(self, rows: Bools) -> None:
        """Forget the past of the given series (B,)."""
        self._weight[rows] = 0.0
        self._since[rows] = 0

    def update(self, value: Floats, seen: Bools) -> Bools:
        """(B,) True where a change is reported, after one more value (B,) of each series in ``seen`` (B,).

        A change is reported when the run that began with the last reported change has ended with a probability above
        the threshold. The first value of a series is not a change.
        """
        rows = np.flatnonzero(seen)
        if not len(rows):
            return np.zeros(len(seen), dtype=np.bool_)
        weight, mean, beta = self._step(value[rows], self._weight[rows], self._mean[rows], self._beta[rows])
        self._weight[rows], self._mean[rows, 1:], self._beta[rows, 1:] = weight, mean, beta
        since = np.minimum(self._since[rows] + 1, len(self._length))
        over = np.where(self._length < since[:, None], weight, 0.0).sum(axis=1) > self._threshold
        self._since[rows] = np.where(over, weight.argmax(axis=1) + 1, since)
        changed = np.zeros(len(seen), dtype=np.bool_)
        changed[rows] = over
        return changed

    def _step(self, value: Floats, weight: Floats, mean: Floats, beta: Floats) -> tuple[Floats, Floats, Floats]:
        """Posterior (n, runs) and statistics (n, runs) of the runs that contain the new value."""
        gap_sq = (value[:, None] - mean) ** 2
        log_fit = self._log_predictive(gap_sq, beta)  # (n, runs + 1); column r: the value extends length r
        log_fit[:, 1:][weight == 0] = -np.inf
        fit = np.exp(log_fit - log_fit.max(axis=1, keepdims=True))
        grown = weight * fit[:, 1:] * (1 - self._hazard)
        new = np.concatenate([self._hazard * fit[:, :1], grown[:, :-1]], axis=1)
        new[:, -1] += grown[:, -1]
        gain = 1.0 / (self._kappa + 1)
        mean = mean + gain * (value[:, None] - mean)
        beta = beta + 0.5 * self._kappa * gain * gap_sq
        # The longest run keeps its count of values, so its sum of squares shrinks to match.
        beta[:, -1] *= self._alpha[-1] / (self._alpha[-1] + 0.5)
        longest = grown[:, -1] > grown[:, -2]
        mean[longest, -2], beta[longest, -2] = mean[longest, -1], beta[longest, -1]
        return new / new.sum(axis=1, keepdims=True), mean[:, :-1], beta[:, :-1]

    def _log_predictive(self, gap_sq: Floats, beta: Floats) -> Floats:
        """Student t with 2 alpha degrees of freedom and scale^2 = beta (kappa + 1) / (alpha kappa)."""
        spread = 2.0 * beta * (self._kappa + 1) / self._kappa
        tail = (self._alpha + 0.5) * np.log1p(gap_sq / spread)
        return np.asarray(self._log_norm - 0.5 * np.log(spread) - tail)

    @property
    def run_length(self) -> Ints:
        """(B,) most probable number of values in the current run; 1 before the first value."""
        return np.asarray(self._weight.argmax(axis=1) + 1)

    @property
    def mean(self) -> Floats:
        """(B,) posterior mean of the current run."""
        return self._mean[np.arange(len(self._mean)), self.run_length]

    @property
    def std(self) -> Floats:
        """(B,) expected standard deviation of the values in the current run."""
        length = self.run_length
        return np.sqrt(self._beta[np.arange(len(self._beta)), length] / self._alpha[length])
