"""How are garment classifiers trained? Augmentation, joint loss of all exits, validation accuracy.

Every step holds half of its samples at 28 px and a quarter each at 20 and 14 px. Each exit learns from the labels
and, but for the last, from the last exit's softened answer (self-distillation, Phuong and Lampert, 2019), which keeps
later exits from falling behind earlier ones.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from runtime.models.training import Group, Scalars

if TYPE_CHECKING:
    from runtime.models.stages import BranchyModel
    from runtime.workloads.garments.workload import Garments

GROUP_SIZES = {14: 64, 20: 64, 28: 128}  # samples per step and resolution
SHIFT_FRAC = 2.0 / 28.0  # largest shift, of the image's side
ERASE_PROBABILITY = 0.3
ERASE_FRAC = (0.15, 0.45)  # sides of the erased rectangle, of the image's side
LABEL_SMOOTHING = 0.05
EARLY_EXIT_WEIGHT = 0.4  # of each exit but the last, whose weight is 1
DISTILLED_FRAC = 0.5  # share of an early exit's loss that comes from the last exit
TEMPERATURE = 2.0


class GarmentsTask:
    """Owns the training and validation images at every resolution."""

    def __init__(self, workload: Garments, seed: int) -> None:
        self._workload = workload
        self._seed = seed
        images, labels = workload.frames("train")
        self._images = {px: workload.resize(images, px) for px in GROUP_SIZES}
        self._labels = torch.from_numpy(labels.astype(np.int64))
        held_out, held_out_labels = workload.frames("validation")
        self._held_out = {px: workload.resize(held_out, px) for px in workload.resolutions_px}
        self._held_out_labels = torch.from_numpy(held_out_labels.astype(np.int64))
        self.steps_per_epoch = len(labels) // sum(GROUP_SIZES.values())

    def steps(self, epoch: int) -> Iterator[Sequence[Group]]:
        rng = np.random.default_rng((self._seed, epoch))
        order = rng.permutation(len(self._labels))
        size = sum(GROUP_SIZES.values())
        for step in range(self.steps_per_epoch):
            yield list(self._groups(order[step * size : (step + 1) * size], rng))

    def _groups(self, rows: NDArray[np.int64], rng: np.random.Generator) -> Iterator[Group]:
        start = 0
        for px, count in GROUP_SIZES.items():
            part = rows[start : start + count]
            start += count
            inputs = self._workload.to_input(augment(self._images[px][part], rng))
            yield Group(erase(inputs, rng), self._labels[part], count / len(rows))

    def loss(self, outputs: list[Tensor], targets: Tensor) -> tuple[Tensor, Scalars]:
        last = outputs[-1]
        total = F.cross_entropy(last, targets, label_smoothing=LABEL_SMOOTHING)
        scalars = {"loss/last_exit": total.item()}
        soft_targets = F.softmax(last.detach() / TEMPERATURE, dim=1)
        for early in outputs[:-1]:
            hard = F.cross_entropy(early, targets, label_smoothing=LABEL_SMOOTHING)
            soft = TEMPERATURE**2 * F.cross_entropy(early / TEMPERATURE, soft_targets)
            total = total + EARLY_EXIT_WEIGHT * ((1 - DISTILLED_FRAC) * hard + DISTILLED_FRAC * soft)
        return total, scalars | {"loss/all_exits": total.item()}

    @torch.no_grad()
    def evaluate(self, model: BranchyModel) -> Scalars:
        """Validation accuracy per resolution and exit, in bfloat16 (close to the final figures, and quicker)."""
        scalars: Scalars = {}
        for px, images in self._held_out.items():
            with torch.autocast("cpu", torch.bfloat16):
                parts = [
                    model.all_exits(self._workload.to_input(images[i : i + 500])) for i in range(0, len(images), 500)
                ]
            for exit_branch in range(len(model.exit_after)):
                answers = torch.cat([outputs[exit_branch] for outputs in parts]).argmax(1)
                right = (answers == self._held_out_labels).float().mean().item()
                scalars[f"accuracy/{px}px/exit{exit_branch}"] = right
        return scalars

    def finish(self, model: BranchyModel) -> None:
        """Nothing: the answer is the likeliest class, without a threshold."""


def augment(images: NDArray[np.uint8], rng: np.random.Generator) -> NDArray[np.uint8]:
    """Random horizontal flips and shifts (zero-filled) of a batch (n, px, px)."""
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
    """Random erasing (Zhong et al., 2020): one rectangle of noise in some of the images, in place."""
    px = inputs.shape[-1]
    for row in np.flatnonzero(rng.random(len(inputs)) < ERASE_PROBABILITY):
        height, width = (round(px * side) for side in rng.uniform(*ERASE_FRAC, 2))
        top, left = rng.integers(0, px - height + 1), rng.integers(0, px - width + 1)
        noise = rng.standard_normal((height, width), dtype=np.float32)
        inputs[row, 0, top : top + height, left : left + width] = torch.from_numpy(noise)
    return inputs
