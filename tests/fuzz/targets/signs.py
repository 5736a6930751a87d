"""The receiver of ``signs``: a byte that chooses a stream with or without tables, then its requests."""

from __future__ import annotations

import numpy as np

from runtime.codecs.signs import Signs
from tests.fuzz.targets.stream import feed, recorded

_SHAPE = (3, 6, 7)


def _frames(count: int) -> np.ndarray:
    """Signs of a pattern that moves, with a little noise."""
    rng = np.random.default_rng(1)
    ys, xs = np.mgrid[: _SHAPE[1], : _SHAPE[2]]
    waves = [np.sin(xs + 0.3 * t + c) + np.cos(ys - 0.2 * t * c) for t in range(count) for c in range(_SHAPE[0])]
    noisy = np.reshape(waves, (count, *_SHAPE)) + rng.normal(0, 0.2, (count, *_SHAPE))
    return np.where(noisy > 0, 1.0, -1.0).astype(np.float32)


_FITTED = Signs().fit(_frames(60))
_TABLES = ({}, _FITTED)
SEEDS = [bytes([number]) + recorded(Signs(), _SHAPE, tables, _frames(6)) for number, tables in enumerate(_TABLES)]


def run(data: bytes) -> None:
    tables = _TABLES[(data or b"\0")[0] % 2]
    feed(Signs().receiver(_SHAPE, tables), _SHAPE, data[1:])
