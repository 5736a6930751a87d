"""The key of a picture: 64 numbers that stay the same when the picture moves a little, or gets brighter or noisier.

Each number is the magnitude of one low frequency of a small grey copy. The magnitudes of a Fourier transform do not
change when the picture is shifted (what enters at the border aside). Without the mean, and scaled to length 1, they do
not change with brightness and contrast either. The square root keeps the few largest from counting alone.
``python -m benchmarks.bench_cache --keys`` compares it with other keys.
"""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from controller.records import Float32s
from runtime.workloads.types import Image

#: Length of a key.
DIMENSIONS = 64
#: Sides of the small grey copy, in pixels. Below 28, garments with equal low frequencies are taken for each other.
_COPY_PX = 28
#: A large picture is thinned out to about so many lines before it is averaged: reading all pixels takes longer than
#: everything else.
_LINES = 72
_HIGHEST = 4
#: A picture whose grey values differ less than this from their mean (root of the mean square) shows nothing.
_LEAST_CONTRAST = 0.5


def _waves(frequencies: NDArray[np.int64]) -> NDArray[np.complex64]:
    """(frequencies, pixels) the waves of a Fourier transform over one side."""
    angles = np.outer(frequencies, np.arange(_COPY_PX)) * (-2j * np.pi / _COPY_PX)
    return np.exp(angles).astype(np.complex64)


# Eight vertical frequencies by eight horizontal ones. Of two frequencies that point in opposite directions, one is
# enough, because a picture's numbers are real.
_DOWN = _waves(np.arange(-_HIGHEST, _HIGHEST))
_ACROSS = np.ascontiguousarray(_waves(np.arange(2 * _HIGHEST)).T)
_MEAN = np.ravel_multi_index((_HIGHEST, 0), (2 * _HIGHEST, 2 * _HIGHEST))


def key_of(picture: Image) -> Float32s | None:
    """The key (64,) of a picture (h, w) or (h, w, 3), not yet of length 1. None for a picture that shows nothing, such
    as that of a covered camera: any two of these would be alike."""
    copy = _grey_copy(picture)
    key = np.abs(_DOWN @ copy @ _ACROSS).ravel()
    mean, square = float(key[_MEAN]) / copy.size, float(np.vdot(copy, copy)) / copy.size
    if not square - mean**2 >= _LEAST_CONTRAST**2:
        return None
    key[_MEAN] = 0.0
    return np.sqrt(key)


def normalised(key: Float32s) -> Float32s | None:
    """The key at length 1; None if that cannot be, because a number is not finite or all are 0."""
    length = float(np.sqrt(key @ key))
    if not 0.0 < length < np.inf:
        return None
    return key / np.float32(length)


def _grey_copy(picture: Image) -> Float32s:
    step = max(picture.shape[0] // _LINES, 1)
    thin = np.ascontiguousarray(picture[::step, ::step])
    grey = thin if thin.ndim == 2 else cv2.cvtColor(thin, cv2.COLOR_BGR2GRAY)
    if grey.shape != (_COPY_PX, _COPY_PX):
        grey = cv2.resize(grey, (_COPY_PX, _COPY_PX), interpolation=cv2.INTER_AREA)
    return grey.astype(np.float32)
