"""Keys of pictures that the cache does not use, to compare with the one that it does: 64 numbers each."""

from __future__ import annotations

from collections.abc import Callable

import cv2
import numpy as np

from controller.records import Float32s
from runtime.shortcuts.cache.keys import key_of
from runtime.workloads.types import Image

_PROJECTION = np.random.default_rng(0).normal(size=(28 * 28, 64)).astype(np.float32)


def _grey(picture: Image, px: int) -> Float32s:
    step = max(picture.shape[0] // 72, 1)
    thin = np.ascontiguousarray(picture[::step, ::step])
    grey = thin if thin.ndim == 2 else cv2.cvtColor(thin, cv2.COLOR_BGR2GRAY)
    small = cv2.resize(grey, (px, px), interpolation=cv2.INTER_AREA).astype(np.float32)
    return np.asarray(small - small.mean(), np.float32)


def pixels(picture: Image) -> Float32s:
    """8 x 8 grey values without their mean."""
    return _grey(picture, 8).ravel()


def cosines(picture: Image) -> Float32s:
    """The 64 lowest frequencies of a discrete cosine transform."""
    return np.asarray(cv2.dct(_grey(picture, 32))[:8, :8], np.float32).ravel()


def projection(picture: Image) -> Float32s:
    """64 random projections of 28 x 28 grey values."""
    return _grey(picture, 28).ravel() @ _PROJECTION


def gradients(picture: Image) -> Float32s:
    """Sums of gradients in four directions over 4 x 4 cells."""
    grey = _grey(picture, 28)
    across, down = cv2.Sobel(grey, cv2.CV_32F, 1, 0), cv2.Sobel(grey, cv2.CV_32F, 0, 1)
    parts = [np.abs(part) for part in (across, down, across + down, across - down)]
    cells = [cv2.resize(p, (4, 4), interpolation=cv2.INTER_AREA) for p in parts]
    return np.asarray(np.stack(cells), np.float32).ravel()


def centred(picture: Image) -> Float32s:
    """8 x 8 grey values of the picture with its centre of mass in the middle."""
    grey = _grey(picture, 28)
    moments = cv2.moments(grey - grey.min())
    mass = moments["m00"] or 1.0
    across, down = 13.5 - moments["m10"] / mass, 13.5 - moments["m01"] / mass
    shift = np.array([[1, 0, across], [0, 1, down]], np.float32)
    moved = cv2.warpAffine(grey - grey.min(), shift, (28, 28))
    small = cv2.resize(moved, (8, 8), interpolation=cv2.INTER_AREA)
    return np.asarray(small - small.mean(), np.float32).ravel()


KEYS: dict[str, Callable[[Image], Float32s | None]] = {
    "spectrum (used)": key_of,
    "centred pixels": centred,
    "gradients": gradients,
    "pixels": pixels,
    "cosine transform": cosines,
    "random projection": projection,
}
