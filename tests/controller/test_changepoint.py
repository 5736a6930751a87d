"""Bayesian online change-point detection: the posterior is exact, steps are found, noise is left alone."""

from __future__ import annotations

import math

import numpy as np
import pytest

from controller.controllers.changepoint import ChangeDetector, Prior
from controller.errors import UsageError

PRIOR = Prior(mean=14.5, kappa=0.05, alpha=2.0, beta=0.18)
SERIES = 500
NOISE = 0.3


def _feed(detector: ChangeDetector, values: np.ndarray) -> np.ndarray:
    """(B, n) reports for values (B, n)."""
    every = np.ones(len(values), dtype=bool)
    return np.stack([detector.update(column, every) for column in values.T], axis=1)


def _log_evidence(values: list[float]) -> float:
    """Log probability of one run, by the chain of its predictives: textbook formulas, one value at a time."""
    mean, kappa, alpha, beta = PRIOR.mean, PRIOR.kappa, PRIOR.alpha, PRIOR.beta
    total = 0.0
    for x in values:
        scale_sq, dof = beta * (kappa + 1) / (alpha * kappa), 2 * alpha
        total += math.lgamma((dof + 1) / 2) - math.lgamma(dof / 2) - 0.5 * math.log(dof * math.pi * scale_sq)
        total -= (dof + 1) / 2 * math.log1p((x - mean) ** 2 / (dof * scale_sq))
        beta += 0.5 * kappa * (x - mean) ** 2 / (kappa + 1)
        mean = (kappa * mean + x) / (kappa + 1)
        kappa, alpha = kappa + 1, alpha + 0.5
    return total


def _posterior_by_enumeration(values: list[float], hazard: float) -> np.ndarray:
    """Run-length posterior from every possible set of change points."""
    n = len(values)
    weight = np.zeros(n)
    for pattern in range(2 ** (n - 1)):
        begins = [0, *(i for i in range(1, n) if pattern >> (i - 1) & 1)]
        log = (len(begins) - 1) * math.log(hazard) + (n - len(begins)) * math.log(1 - hazard)
        for begin, end in zip(begins, [*begins[1:], n], strict=True):
            log += _log_evidence(values[begin:end])
        weight[n - begins[-1] - 1] += math.exp(log)
    return weight / weight.sum()


def test_the_posterior_is_that_of_enumerating_all_change_points():
    values = [14.0, 14.2, 13.9, 15.5, 15.6, 15.4, 12.0, 12.3]
    detector = ChangeDetector(PRIOR, 1, hazard=0.1, runs=8)
    _feed(detector, np.array([values]))
    np.testing.assert_allclose(detector._weight[0], _posterior_by_enumeration(values, 0.1), rtol=1e-9)


@pytest.mark.parametrize(("step", "soon"), [(-0.9, 6), (-1.8, 2), (1.8, 2)])
def test_a_step_is_reported_within_a_few_samples(step, soon):
    rng = np.random.default_rng(1)
    values = 15.0 + NOISE * rng.standard_normal((SERIES, 50))
    values[:, 30:] += step
    found = _feed(ChangeDetector(PRIOR, SERIES), values)[:, 30 : 30 + soon].any(axis=1)
    assert found.mean() > 0.95


@pytest.mark.parametrize("noise", [0.05, 0.15, 0.3])
def test_stationary_noise_is_left_alone(noise):
    rng = np.random.default_rng(2)
    reports = _feed(ChangeDetector(PRIOR, SERIES), 13.0 + noise * rng.standard_normal((SERIES, 200)))
    assert reports.mean() < 0.01, "false reports per sample"


def test_after_a_step_the_run_has_the_new_level_and_spread():
    rng = np.random.default_rng(3)
    values = np.concatenate([15.0 + 0.1 * rng.standard_normal(40), 13.0 + 0.5 * rng.standard_normal(40)])
    detector = ChangeDetector(PRIOR, 1)
    _feed(detector, values[None])
    assert abs(detector.mean[0] - 13.0) < 0.3
    assert 0.3 < detector.std[0] < 0.7
    assert abs(detector.run_length[0] - 40) <= 1


def test_a_run_longer_than_the_truncation_is_no_change():
    values = np.full((1, 300), 14.0) + 0.05 * np.sin(np.arange(300.0))
    detector = ChangeDetector(PRIOR, 1, runs=16)
    assert not _feed(detector, values).any()
    assert detector.run_length[0] == 16
    assert abs(detector.mean[0] - 14.0) < 0.05


def test_series_of_a_batch_do_not_influence_each_other():
    rng = np.random.default_rng(4)
    values = np.cumsum(rng.standard_normal((5, 60)), axis=1)
    together = _feed(ChangeDetector(PRIOR, 5), values)
    alone = np.concatenate([_feed(ChangeDetector(PRIOR, 1), row[None]) for row in values])
    np.testing.assert_array_equal(together, alone)


def test_a_series_that_was_not_seen_keeps_its_posterior():
    detector = ChangeDetector(PRIOR, 2)
    _feed(detector, np.full((2, 10), 14.0))
    before = detector.mean[1], detector.std[1], detector.run_length[1]
    detector.update(np.array([10.0, 10.0]), np.array([True, False]))
    assert (detector.mean[1], detector.std[1], detector.run_length[1]) == before


def test_reset_forgets_one_series_only():
    detector = ChangeDetector(PRIOR, 2)
    _feed(detector, np.full((2, 10), 14.0))
    detector.reset(np.array([True, False]))
    reports = detector.update(np.array([10.0, 10.0]), np.ones(2, dtype=bool))
    assert reports.tolist() == [False, True]
    assert detector.run_length.tolist() == [1, 1]


@pytest.mark.parametrize("wrong", [{"hazard": 0.0}, {"hazard": 1.0}, {"threshold": 1.5}])
def test_impossible_probabilities_are_refused(wrong):
    with pytest.raises(UsageError, match="expected both within"):
        ChangeDetector(PRIOR, 1, **wrong)


def test_an_improper_prior_is_refused():
    with pytest.raises(UsageError, match="above 0"):
        Prior(0.0, 0.0, 1.0, 1.0)
