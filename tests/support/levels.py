"""Levels of consecutive frames as an asymmetric detector sends them: moving blobs over places that rest or flicker."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from runtime.codecs.signs import fit_tables


def moving_levels(shape: tuple[int, int, int], frames: int, seed: int = 0) -> NDArray[np.uint8]:
    """Levels (frames, channels, h, w) of 0 and 1."""
    rng = np.random.default_rng(seed)
    channels, h, w = shape
    rest = rng.random(shape) < 0.1
    flickers = rng.random(shape) < 0.01
    part = rng.random((channels, 1, 1)) < 0.5
    levels = np.empty((frames, *shape), np.uint8)
    for number in range(frames):
        frame = rest ^ (flickers & (rng.random(shape) < 0.3))
        y, x = number % h, 2 * number % w
        frame[:, y : y + 5, x : x + 3] ^= part
        levels[number] = frame
    return levels


def signs_of(levels: NDArray[np.uint8]) -> NDArray[np.float32]:
    """-1 and +1."""
    return np.where(levels > 0, np.float32(1), np.float32(-1))


def fitted(shape: tuple[int, int, int], frames: int = 24) -> dict[str, NDArray[np.uint8]]:
    """Tables for `moving_levels` of that shape."""
    return fit_tables(moving_levels(shape, frames))
