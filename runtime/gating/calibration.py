"""Calibrated confidence of every exit of a bundle: fitted on its recorded answers, so that it belongs to its models.

``Task.confidence`` says how sure an exit is of an answer, with one temperature for all resolutions. What is left is
fitted here, per exit and resolution: two numbers that map the logarithm of its odds, with which the expected score of
the answers has the least log loss on the validation split (Platt, 1999; scores between 0 and 1 count as shares). A
prior keeps the two near those of no change where samples are few.
"""

from __future__ import annotations

import math
from dataclasses import replace
from functools import cache
from typing import NamedTuple

import numpy as np

from controller.errors import FailureError
from controller.gates import calibrated, log_odds
from controller.records import Floats
from runtime.bundles.bundle import Bundle
from runtime.bundles.recorded import Recorded

#: More confidence must mean a better answer.
LEAST_SLOPE = 0.05
#: Slope and offset before the fit, and their weight: that of a normal prior with a variance of one.
_EXPECTED, _PRIOR = np.array([1.0, 0.0]), 1.0
#: Newton's method takes five steps or so; a step is shortened to a length of one.
_ROUNDS, _CLOSE = 50, 1e-10
#: Confidence, before the fit here, that misses the scores by more is that of other answers. The shipped exits miss them
#: by 0.08 at most.
MOST_ERROR = 0.2
BINS = 15


class Calibration(NamedTuple):
    """What ``controller.gates.calibrated`` takes beside the confidence."""

    slope: float
    offset: float


class Calibrations:
    """Fits the exits of one bundle, each when it is first asked for. Owns the recorded validation split.

    FailureError if a recorded confidence cannot belong to the answers of its exit.
    """

    def __init__(self, bundle: Bundle) -> None:
        self._bundle = bundle
        self.recorded: Recorded = bundle.recorded("validation")
        self.of, self.best_of = cache(self._of), cache(self._best_of)

    def variant(self, model: str, resolution_px: int, exit_branch: int) -> int:
        """Row of the recorded answers of an exit, without loss."""
        return self._bundle.exact_variant(model, resolution_px, exit_branch)

    def _best_of(self, model: str, resolution_px: int, exit_branch: int) -> Calibration:
        """The calibration, or none where confidence is no number: an observation may be poor, a gate must not be."""
        variant = self.variant(model, resolution_px, exit_branch)
        found = fit(self.recorded.confidence[variant], self.recorded.score[variant])
        return found if np.isfinite(found).all() else Calibration(*_EXPECTED.tolist())

    def expected_scores(self, recorded: Recorded) -> Recorded:
        """The same answers of a split of this bundle, with the score that their confidence lets expect."""
        expected = np.empty_like(recorded.confidence)
        for row, v in enumerate(self._bundle.manifest.variants):
            calibration = self.best_of(v.model, v.resolution_px, v.exit_branch)
            expected[row] = calibrated(recorded.confidence[row], *calibration)
        return replace(recorded, expected_score=expected)

    def _of(self, model: str, resolution_px: int, exit_branch: int) -> Calibration:
        where = f"{self._bundle.directory}: exit {exit_branch} of {model} at {resolution_px} px"
        temperature = self._bundle.info(model).exits[exit_branch].temperature
        if not (math.isfinite(temperature) and temperature > 0):
            raise FailureError(f"{where} has temperature {temperature}; expected a number above 0: train it again")
        variant = self.variant(model, resolution_px, exit_branch)
        confidence, score = self.recorded.confidence[variant], self.recorded.score[variant]
        found = fit(confidence, score)
        error = calibration_error(confidence, score)
        if not error <= MOST_ERROR or found.slope <= LEAST_SLOPE:
            raise FailureError(
                f"{where}: its recorded confidence does not belong to its recorded scores (calibration error "
                f"{error:.2f}, slope {found.slope:.2f}; expected {MOST_ERROR:g} at most, more than {LEAST_SLOPE:g}): "
                "the calibration is that of another model; train the bundle again, or use it without a gate"
            )
        return found


def fit(confidence: Floats, score: Floats) -> Calibration:
    """The calibration with the least log loss for recorded confidence (S,) against scores (S,), both 0 to 1."""
    odds, right = log_odds(confidence), np.asarray(score, np.float64)
    numbers = _EXPECTED.copy()
    for _ in range(_ROUNDS):
        share = 1.0 / (1.0 + np.exp(-(numbers[0] * odds + numbers[1])))
        wrong, weight = share - right, share * (1.0 - share)
        gradient = np.array([wrong @ odds, wrong.sum()]) + _PRIOR * (numbers - _EXPECTED)
        mixed = weight @ odds
        curvature = np.array([[weight @ odds**2 + _PRIOR, mixed], [mixed, weight.sum() + _PRIOR]])
        step = np.linalg.solve(curvature, gradient)
        numbers -= step / max(1.0, float(np.abs(step).max()))
        if np.abs(step).max() < _CLOSE:
            break
    return Calibration(*numbers.tolist())


def calibration_error(confidence: Floats, score: Floats) -> float:
    """Expected calibration error (Guo et al., ICML 2017, section 2): mean distance between confidence (S,) and score
    (S,) over ``BINS`` bins of confidence, weighted by their samples."""
    place = np.minimum((confidence * BINS).astype(np.int64), BINS - 1)
    apart = np.bincount(place, np.asarray(confidence, np.float64) - score, BINS)
    return float(np.abs(apart).sum() / len(place))
