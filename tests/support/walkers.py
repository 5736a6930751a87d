"""A synthetic camera for trainings of campus detectors, and a reporter that only remembers the last scores."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray


class Walkers:
    """A camera that sees dark rectangles walk before a grey wall."""

    name = "walkers"
    resolutions_px = (256,)

    def sample_count(self, split: str) -> int:
        return 24

    def sample(self, index: int, split: str = "test") -> tuple[NDArray[np.uint8], list[list[float]]]:
        rng = np.random.default_rng((index, len(split)))
        frame = rng.integers(140, 160, (576, 768, 3)).astype(np.uint8)
        truth = []
        for column in rng.permutation(6)[:3]:
            x, y = int(column * 120 + rng.integers(0, 70)), int(rng.integers(100, 400))
            frame[y : y + 96, x : x + 36] = rng.integers(0, 60, 3)
            truth.append([x, y, 36, 96, 1.0])
        return frame, truth

    def resize(self, image: NDArray[np.uint8], px: int) -> NDArray[np.uint8]:
        return np.ascontiguousarray(image[:: 768 // px, :: 768 // px])

    def to_input(self, images: NDArray[np.uint8]) -> torch.Tensor:
        return torch.from_numpy(images).permute(0, 3, 1, 2).float().sub(128.0).div(64.0)


class Quiet:
    def __init__(self) -> None:
        self.scores: dict[str, float] = {}

    def step(self, step: int, scalars: Any) -> None:
        pass

    def epoch(self, epoch: int, scalars: dict[str, float]) -> None:
        self.scores = scalars
