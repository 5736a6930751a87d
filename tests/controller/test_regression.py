"""Edgent's regressions: non-negative, one per layer kind, and right on layers that follow the model."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
from support.waiting import PATIENCE_S

from controller.errors import UsageError
from controller.predict.regression import LayerSample, fit_layers, predict_layers_s, prediction_error


def conv_samples(noise: float, count: int = 40, seed: int = 3) -> list[LayerSample]:
    """Layers of 2 us + 1 ns per input element + 40 ns per filter unit, with relative noise."""
    rng = np.random.default_rng(seed)
    samples = []
    for _ in range(count):
        regressors = (float(rng.integers(100, 50_000)), float(rng.integers(9, 900)))
        exact_s = 2e-6 + 1e-9 * regressors[0] + 40e-9 * regressors[1]
        samples.append(LayerSample("conv", regressors, exact_s * float(np.exp(noise * rng.standard_normal()))))
    return samples


def test_known_coefficients_are_found_exactly_without_noise() -> None:
    model = fit_layers(conv_samples(noise=0.0))["conv"]
    assert model.intercept_s == pytest.approx(2e-6, rel=1e-6)
    assert model.coefficients_s == pytest.approx((1e-9, 40e-9), rel=1e-6)
    assert model.samples == 40


def test_layers_never_seen_are_predicted_within_the_noise() -> None:
    models = fit_layers(conv_samples(noise=0.05))
    unseen = conv_samples(noise=0.0, seed=4)
    predicted = np.array([models["conv"].predict_s(sample.regressors) for sample in unseen])
    assert prediction_error(predicted, np.array([s.measured_s for s in unseen])).mape_frac < 0.05


def test_no_coefficient_is_negative_even_when_larger_layers_were_quicker() -> None:
    samples = [LayerSample("relu", (float(size),), 1e-5 / size) for size in range(1, 20)]
    model = fit_layers(samples)["relu"]
    assert model.intercept_s >= 0
    assert model.coefficients_s == (0.0,)


def test_small_layers_count_as_much_as_large_ones() -> None:
    small = [LayerSample("fc", (float(n), 10.0), 5e-6 + 1e-9 * n) for n in range(100, 200, 10)]
    large = [LayerSample("fc", (1e6, 1e4), 2e-3)]
    model = fit_layers(small + large)["fc"]
    for sample in small:
        assert model.predict_s(sample.regressors) == pytest.approx(sample.measured_s, rel=0.1)


def test_a_segment_is_the_sum_of_its_layers() -> None:
    models = fit_layers(conv_samples(0.0) + [LayerSample("add", (float(n),), 1e-9 * n) for n in (10, 20, 30)])
    layers = [("conv", (1000.0, 90.0)), ("add", (500.0,)), ("conv", (2000.0, 9.0))]
    expected = (2e-6 + 1e-6 + 3.6e-6) + 0.5e-6 + (2e-6 + 2e-6 + 0.36e-6)
    assert predict_layers_s(models, layers) == pytest.approx(expected, rel=1e-6)
    assert predict_layers_s(models, []) == 0.0


def test_what_cannot_be_fitted_or_predicted_is_named() -> None:
    with pytest.raises(UsageError, match="'lstm'; expected one of: conv"):
        predict_layers_s(fit_layers(conv_samples(0.0)), [("lstm", (1.0,))])
    with pytest.raises(UsageError, match="'conv'"):
        fit_layers([LayerSample("conv", (1.0, 2.0), 0.0)])
    with pytest.raises(UsageError, match="no measurement"):
        prediction_error(np.array([]), np.array([]))


def test_errors_are_relative_and_absolute() -> None:
    error = prediction_error(np.array([1.1e-3, 1.8e-3]), np.array([1e-3, 2e-3]))
    assert error.mape_frac == pytest.approx(0.1)
    assert error.rmse_s == pytest.approx(np.sqrt((1e-4**2 + 2e-4**2) / 2))


def test_importing_the_module_does_not_load_scipy() -> None:
    check = "import sys, controller.predict.regression; sys.exit('scipy' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", check], timeout=PATIENCE_S).returncode == 0
