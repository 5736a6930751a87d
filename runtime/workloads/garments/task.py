"""The training task of garment classifiers: ``ClassTraining`` with flips, shifts and erased rectangles.

Half of the samples of a step have 28 px; a quarter each have 20 and 14 px.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from runtime.workloads.class_training import ClassTraining

if TYPE_CHECKING:
    from runtime.workloads.garments.workload import Garments

GROUP_SIZES = {14: 64, 20: 64, 28: 128}  # samples per step and resolution
SHIFT_FRAC = 2.0 / 28.0  # largest shift, as a share of the image's side
ERASE_PROBABILITY = 0.3
ERASE_FRAC = (0.15, 0.45)  # sides of the erased rectangle, as a share of the image's side


class GarmentsTask(ClassTraining):
    """Training with augmented images."""

    def __init__(self, workload: Garments, seed: int) -> None:
        super().__init__(workload, seed, GROUP_SIZES)

    def inputs(self, images: NDArray[np.uint8], rng: np.random.Generator) -> Tensor:
        return erase(super().inputs(augment(images, rng), rng), rng)


def augment(images: NDArray[np.uint8], rng: np.random.Generator) -> NDArray[np.uint8]:
    """Flip and shift each image of a batch (n, px, px) at random; uncovered pixels are 0."""
    count, px = len(images), images.shape[-1]
    reach = round(SHIFT_FRAC * px)
    padded = np.pad(images, ((0, 0), (reach, reach), (reach, reach)))
    rows = rng.integers(0, 2 * reach + 1, (count, 1)) + np.arange(px)
    columns = rng.integers(0, 2 * reach + 1, (count, 1)) + np.arange(px)
    flipped = rng.random(count) < 0.5
    columns[flipped] = columns[flipped, ::-1]
    moved: NDArray[np.uint8] = padded[np.arange(count)[:, None, None], rows[:, :, None], columns[:, None, :]]
    return moved


def erase(inputs: Tensor, rng: np.random.Generator) -> Tensor:
    """Random erasing (Zhong et al., 2020): draw a rectangle of noise into some images (n, 1, px, px), in place."""
    px = inputs.shape[-1]
    for row in np.flatnonzero(rng.random(len(inputs)) < ERASE_PROBABILITY):
        height, width = (round(px * side) for side in rng.uniform(*ERASE_FRAC, 2))
        top, left = rng.integers(0, px - height + 1), rng.integers(0, px - width + 1)
        noise = rng.standard_normal((height, width), dtype=np.float32)
        inputs[row, 0, top : top + height, left : left + width] = torch.from_numpy(noise)
    return inputs
