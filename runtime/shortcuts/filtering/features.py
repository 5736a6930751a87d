"""How much does a picture differ from an earlier one? Four cheap features of small copies.

The kinds of features are those of Reducto (Li et al., SIGCOMM 2020): pixels, changed areas, edges and corners. A small
copy takes the green channel of about every eighth pixel in both directions, without averaging: averaging all
pixels would take longer than encoding the picture as a JPEG. All differences are from 0 to 1.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from runtime.workloads.types import Image

Small = NDArray[np.uint8]  # (h, w), h about SMALL_LINES

#: Lines of a small copy, about. A picture with fewer than twice as many is copied whole.
SMALL_LINES = 72
#: Least change of a pixel (of 255) that makes it part of a changed area, after blurring.
AREA_STEP = 12


def small_copy(picture: Image) -> Small:
    """(h, w) of a picture (h, w[, 3]): every n-th pixel of its green channel, or of its only one."""
    step = max(1, picture.shape[0] // SMALL_LINES)
    return np.ascontiguousarray(picture[::step, ::step, 1] if picture.ndim == 3 else picture[::step, ::step])


def _same(small: Small) -> Small:
    return small


def _edges(small: Small) -> Small:
    """Strength of the edges: mean of the absolute gradients in both directions."""
    across, down = (cv2.convertScaleAbs(cv2.Sobel(small, cv2.CV_16S, *axis)) for axis in ((1, 0), (0, 1)))
    return np.asarray(cv2.addWeighted(across, 0.5, down, 0.5, 0.0), np.uint8)


def _corners(small: Small) -> Small:
    """Strength of the corners: the smaller eigenvalue of the structure tensor (Shi and Tomasi, 1994), scaled so that
    strong corners reach 255."""
    return np.asarray(cv2.convertScaleAbs(cv2.cornerMinEigenVal(small, 3), alpha=255.0 * 60.0), np.uint8)


def _mean(one: Small, other: Small) -> float:
    """Mean absolute difference."""
    return float(cv2.norm(one, other, cv2.NORM_L1)) / (255.0 * one.size)


def _area(one: Small, other: Small) -> float:
    """Share of the picture that the largest connected changed area covers."""
    changed = cv2.threshold(cv2.blur(cv2.absdiff(one, other), (3, 3)), AREA_STEP, 255, cv2.THRESH_BINARY)[1]
    count, _, stats, _ = cv2.connectedComponentsWithStats(changed, connectivity=8)
    return float(stats[1:, cv2.CC_STAT_AREA].max()) / one.size if count > 1 else 0.0


class Feature(NamedTuple):
    """What is kept of a picture, and the difference of two of these."""

    of: Callable[[Small], Small]
    difference: Callable[[Small, Small], float]
    weight: float  # of the difference: consecutive campus frames differ by about as much with each feature


#: Weights are ratios of the median differences of consecutive training frames of campus.
FEATURES = {
    "pixel": Feature(_same, _mean, 1.0),
    "area": Feature(_same, _area, 0.6),
    "edge": Feature(_edges, _mean, 0.43),
    "corner": Feature(_corners, _mean, 0.42),
}

#: Profiled device time of one look at a campus picture with each feature, sketch and difference, in seconds. Measured
#: by `python -m benchmarks.bench_filter` and rounded up: pictures that have left the processor's cache take longer.
LOOK_S = {"pixel": 5e-5, "area": 1.2e-4, "edge": 6e-5, "corner": 7e-5}


class Sketch(NamedTuple):
    """What is kept of a picture."""

    shape: tuple[int, ...]  # of the picture
    small: Small


class Differencer:
    """One of the features, as a function of whole pictures."""

    def __init__(self, name: str) -> None:
        self._feature = FEATURES[name]

    def sketch(self, picture: Image) -> Sketch:
        """What is kept of a picture (h, w[, 3])."""
        return Sketch(picture.shape, self._feature.of(small_copy(picture)))

    def difference(self, one: Sketch, other: Sketch) -> float:
        """Of two sketches, from 0 to 1; not a number if the pictures have different sizes."""
        if one.shape != other.shape:
            return float("nan")
        return self._feature.weight * self._feature.difference(one.small, other.small)
