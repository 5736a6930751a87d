"""Predicted latency of layers that were never measured: Edgent's regressions, one per layer kind (Li et al., 2019).

Latency of a layer = intercept + coefficients . regressors; the kind says which regressors. All terms are fitted
non-negative: a negative time, or a larger layer that is faster, is measurement noise. Residuals are relative to the
measured time, because layers of one kind span two orders of magnitude and their noise is proportional. With absolute
residuals the largest layers alone would decide.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from controller.errors import UsageError
from controller.records import Floats


@dataclass(frozen=True, slots=True)
class LayerSample:
    """One measured layer."""

    kind: str
    regressors: tuple[float, ...]
    measured_s: float


@dataclass(frozen=True, slots=True)
class LayerModel:
    """Fitted latency of one kind of layer; seconds, and seconds per unit of each regressor."""

    intercept_s: float
    coefficients_s: tuple[float, ...]
    samples: int  # number of measurements in the fit

    def predict_s(self, regressors: Sequence[float]) -> float:
        """Latency of one layer of this kind."""
        return self.intercept_s + float(np.dot(self.coefficients_s, regressors))


@dataclass(frozen=True, slots=True)
class PredictionError:
    """Distance of predictions from measurements."""

    mape_frac: float  # mean of |predicted - measured| / measured
    rmse_s: float
    count: int


def fit_layers(samples: Iterable[LayerSample]) -> dict[str, LayerModel]:
    """One non-negative regression per layer kind of the samples; UsageError for times that are not above 0."""
    by_kind: dict[str, list[LayerSample]] = defaultdict(list)
    for sample in samples:
        by_kind[sample.kind].append(sample)
    return {kind: _fit_kind(kind, found) for kind, found in sorted(by_kind.items())}


def _fit_kind(kind: str, samples: list[LayerSample]) -> LayerModel:
    from scipy.optimize import nnls  # lazy: scipy takes longer to import than all of controller

    measured_s = np.array([sample.measured_s for sample in samples])
    if (measured_s <= 0).any() or len({len(sample.regressors) for sample in samples}) != 1:
        raise UsageError(f"samples of layer kind {kind!r}: expected times above 0 and the same number of regressors")
    design = np.array([(1.0, *sample.regressors) for sample in samples])
    scale = np.maximum(np.abs(design).max(axis=0), 1e-12)  # columns span eight orders of magnitude
    fitted, _ = nnls(design / scale / measured_s[:, None], np.ones(len(samples)))
    intercept, *coefficients = (fitted / scale).tolist()
    return LayerModel(intercept, tuple(coefficients), len(samples))


def predict_layers_s(models: Mapping[str, LayerModel], layers: Iterable[tuple[str, Sequence[float]]]) -> float:
    """Sum over layers (kind, regressors) that run one after another; UsageError for a kind without regression."""
    total = 0.0
    for kind, regressors in layers:
        if kind not in models:
            raise UsageError(f"no regression for layer kind {kind!r}; expected one of: {', '.join(models)}")
        total += models[kind].predict_s(regressors)
    return total


def prediction_error(predicted_s: Floats, measured_s: Floats) -> PredictionError:
    """MAPE and RMSE over (n,) pairs; UsageError without any."""
    if not len(measured_s):
        raise UsageError("prediction error: got no measurement; expected at least one")
    error = np.asarray(predicted_s) - np.asarray(measured_s)
    return PredictionError(
        float(np.mean(np.abs(error) / measured_s)), float(np.sqrt(np.mean(error**2))), len(measured_s)
    )
