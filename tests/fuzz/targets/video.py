"""The receiver of H.264: a byte that chooses a shape, then its requests."""

from __future__ import annotations

import numpy as np

from runtime.codecs.video import H264
from tests.fuzz.targets.stream import feed, recorded

_SHAPES = ((48, 64, 3), (30, 50))
_CODEC = H264(40)


def _frames(shape: tuple[int, ...]) -> list[np.ndarray]:
    rng = np.random.default_rng(2)
    still = rng.integers(0, 256, shape, dtype=np.uint8)
    return [np.roll(still, 2 * number, axis=1) for number in range(4)]


SEEDS = [bytes([number]) + recorded(_CODEC, shape, {}, _frames(shape)) for number, shape in enumerate(_SHAPES)]


def run(data: bytes) -> None:
    shape = _SHAPES[(data or b"\0")[0] % 2]
    feed(_CODEC.receiver(shape, {}), shape, data[1:])
