"""The training task of classifiers: data, joint loss of all exits, validation accuracy.

Every step has samples of several resolutions. Each exit learns from the labels; every exit but the last also learns
from the softened output of the last (self-distillation, Phuong and Lampert, 2019), so that later exits do not fall
behind earlier ones.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from runtime.models.arithmetic import training_arithmetic
from runtime.models.training import Group, Scalars
from runtime.workloads.types import Images, Split

if TYPE_CHECKING:
    from runtime.models.stages import BranchyModel
    from runtime.workloads.base import Workload

BATCH = 64  # samples per step, divided evenly among the resolutions
LABEL_SMOOTHING = 0.05
EARLY_EXIT_WEIGHT = 0.4  # of each exit but the last, whose weight is 1
DISTILLED_FRAC = 0.5  # share of an early exit's loss that comes from the last exit
TEMPERATURE = 2.0


class ClassTraining:
    """Owns the training and validation images at every resolution.

    ``group_sizes``: samples per step for each resolution in pixels; by default the same number for each.
    """

    def __init__(self, workload: Workload, seed: int, group_sizes: Mapping[int, int] | None = None) -> None:
        self._workload = workload
        self._seed = seed
        images, labels = _all_samples(workload, "train")
        sizes = group_sizes or _even_sizes(workload.resolutions_px, len(labels))
        self._group_sizes = sizes
        self._images = {px: self._resized(images, px) for px in sizes}
        self._labels = torch.from_numpy(labels)
        held_out, held_out_labels = _all_samples(workload, "validation")
        self._held_out = {px: self._resized(held_out, px) for px in workload.resolutions_px}
        self._held_out_labels = torch.from_numpy(held_out_labels)
        self.steps_per_epoch = len(labels) // sum(sizes.values())

    def _resized(self, images: Images, px: int) -> Images:
        return np.stack([self._workload.resize(image, px) for image in images])

    def steps(self, epoch: int) -> Iterator[Sequence[Group]]:
        rng = np.random.default_rng((self._seed, epoch))
        order = rng.permutation(len(self._labels))
        size = sum(self._group_sizes.values())
        for step in range(self.steps_per_epoch):
            yield list(self._groups(order[step * size : (step + 1) * size], rng))

    def _groups(self, rows: NDArray[np.int64], rng: np.random.Generator) -> Iterator[Group]:
        start = 0
        for px, count in self._group_sizes.items():
            part = rows[start : start + count]
            start += count
            yield Group(self.inputs(self._images[px][part], rng), self._labels[part], count / len(rows))

    def inputs(self, images: Images, rng: np.random.Generator) -> Tensor:
        """Convert a batch (n, h, w[, 3]) to model inputs. A subclass may augment the images first."""
        return self._workload.to_input(images)

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
        """Validation accuracy per resolution and exit, close to the final figures."""
        scalars: Scalars = {}
        for px, images in self._held_out.items():
            with training_arithmetic():
                parts = [
                    model.all_exits(self._workload.to_input(images[i : i + 500])) for i in range(0, len(images), 500)
                ]
            for exit_branch in range(len(model.exit_after)):
                answers = torch.cat([outputs[exit_branch] for outputs in parts]).argmax(1)
                right = (answers == self._held_out_labels).float().mean().item()
                scalars[f"accuracy/{px}px/exit{exit_branch}"] = right
        return scalars

    def finish(self, model: BranchyModel) -> None:
        """Nothing to do: the answer is the most likely class, without a threshold."""


def _all_samples(workload: Workload, split: Split) -> tuple[Images, NDArray[np.int64]]:
    """Images (n, h, w[, 3]) and class numbers (n,) of a split."""
    samples = [workload.sample(index, split) for index in range(workload.sample_count(split))]
    return np.stack([image for image, _ in samples]), np.array([truth for _, truth in samples], np.int64)


def _even_sizes(resolutions_px: Sequence[int], samples: int) -> dict[int, int]:
    """The same number of samples for each resolution. A data set smaller than a batch is one step."""
    each = max(1, min(BATCH, samples) // len(resolutions_px))
    return dict.fromkeys(resolutions_px, each)
