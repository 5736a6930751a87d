"""The key of a picture: 64 numbers that change little when the picture moves a little, or gets brighter or noisier.

48 numbers are magnitudes of low frequencies of a small grey copy. Magnitudes of a Fourier transform do not change when
the picture is shifted (what enters at the border aside). Without the mean, and scaled to length 1, they do not change
with brightness and contrast either. The square root keeps the few largest from counting alone. But a picture that is
turned upside down has the same magnitudes, and one that is moved far has much the same. So 16 grey values of a very
small copy are added, with little weight. ``python -m benchmarks.bench_cache --keys`` compares this key with others.
"""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from controller.records import Float32s
from runtime.workloads.types import Image

#: Sides of the two copies, in pixels.
_COPY_PX, _COARSE_PX = 28, 4
#: Length of the grey values, relative to that of the magnitudes. With 0.2, an item that is shifted by a pixel of 28
#: still is closest to itself, and a campus picture that is turned or moved by a tenth is far from what it was.
_COARSE_LENGTH = 0.2
#: A large picture is thinned out to about so many lines before it is averaged: reading all pixels takes longer than
#: everything else.
_LINES = 72
#: A picture whose grey values differ less than this from their mean (root of the mean square) shows nothing.
_LEAST_CONTRAST = 0.5


def _waves(frequencies: NDArray[np.int64]) -> NDArray[np.complex64]:
    """(frequencies, pixels) the waves of a Fourier transform over one side."""
    angles = np.outer(frequencies, np.arange(_COPY_PX)) * (-2j * np.pi / _COPY_PX)
    waves: NDArray[np.complex64] = np.exp(angles).astype(np.complex64)
    return waves


# Six vertical frequencies by eight horizontal ones. Of two frequencies that point in opposite directions, one is
# enough, because a picture's numbers are real.
_DOWN = _waves(np.arange(-3, 3))
_ACROSS = np.ascontiguousarray(_waves(np.arange(8)).T)
_MEAN = 3, 0  # where frequency 0 stands


def key_of(picture: Image) -> Float32s | None:
    """The key (64,) of a picture (h, w) or (h, w, 3), not yet of length 1. None for a picture that shows nothing, such
    as that of a covered camera: any two of these would be alike."""
    copy = _grey_copy(picture)
    magnitudes = np.abs(_DOWN @ copy @ _ACROSS)
    mean = float(magnitudes[_MEAN]) / copy.size
    if not float(np.vdot(copy, copy)) / copy.size - mean**2 >= _LEAST_CONTRAST**2:
        return None
    magnitudes[_MEAN] = 0.0
    spectrum = np.sqrt(magnitudes).ravel()
    coarse = cv2.resize(copy, (_COARSE_PX, _COARSE_PX), interpolation=cv2.INTER_AREA).ravel() - np.float32(mean)
    length = np.sqrt(magnitudes.sum() / max(float(coarse @ coarse), 1e-9))
    return np.concatenate((spectrum, coarse * np.float32(_COARSE_LENGTH * length)))


def normalised(key: Float32s) -> Float32s | None:
    """The key at length 1; None if that cannot be, because a number is not finite or all are 0."""
    length = float(np.sqrt(key @ key))
    if not 0.0 < length < np.inf:
        return None
    return key / np.float32(length)


def _grey_copy(picture: Image) -> Float32s:
    """(28, 28)"""
    step = max(picture.shape[0] // _LINES, 1)
    thin = np.ascontiguousarray(picture[::step, ::step])
    grey = thin if thin.ndim == 2 else cv2.cvtColor(thin, cv2.COLOR_BGR2GRAY)
    if grey.shape != (_COPY_PX, _COPY_PX):
        grey = cv2.resize(grey, (_COPY_PX, _COPY_PX), interpolation=cv2.INTER_AREA)
    return grey.astype(np.float32)
