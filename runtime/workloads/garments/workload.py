"""The garments workload: Fashion-MNIST, clothes in ten classes, 28 x 28 grey pixels.

A fixed permutation divides the 60,000 training images into 55,000 for training and 5,000 for validation. Nothing is
trained or chosen on the 10,000 test images. `index` counts within a split.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from controller.scenario import Scenario
from runtime.workloads.base import Workload
from runtime.workloads.classifier import Classifier
from runtime.workloads.datasets import FASHION_MNIST_FILES, FashionMnist, load_fashion_mnist
from runtime.workloads.resize import resize_area
from runtime.workloads.types import Image, Images, Split

if TYPE_CHECKING:
    from torch import Tensor

    from runtime.models.stages import BranchyModel
    from runtime.models.training import TrainingTask

VALIDATION_COUNT = 5_000
SPLIT_SEED = 0  # independent of the training seed, so every bundle has the same split
PIXEL_MEAN = 0.286  # of the training images, in units of 255
PIXEL_STD = 0.353


class Garments(Classifier):
    """Owns the data set, which is loaded on first use."""

    name = "garments"
    class_names = (
        "t-shirt/top",
        "trouser",
        "pullover",
        "dress",
        "coat",
        "sandal",
        "shirt",
        "sneaker",
        "bag",
        "ankle boot",
    )
    data_files = FASHION_MNIST_FILES
    resolutions_px = (28, 20, 14)
    training_epochs: Mapping[str, int] = MappingProxyType({"resnet": 18, "vgg": 14, "alexnet": 16, "mobilenet": 18})
    families = tuple(training_epochs)
    # No JPEG: on these images it is larger than PNG at equal accuracy. Validation split, last exit of VGG, 28 px:
    # PNG 511 bytes 93.7 %; JPEG quality 95 672 bytes 93.6 %, 85 515 bytes 93.1 %, 75 449 bytes 92.3 %.
    image_codecs = ("raw", "png")

    def __init__(self, data_dir: Path | None = None) -> None:
        self._data_dir = data_dir
        self._splits: dict[Split, tuple[Images, NDArray[np.uint8]]] = {}

    @cached_property
    def _data(self) -> FashionMnist:
        return load_fashion_mnist(self._data_dir)

    @cached_property
    def _train_rows(self) -> NDArray[np.int64]:
        return np.random.default_rng(SPLIT_SEED).permutation(len(self._data.train_labels))

    def frames(self, split: Split) -> tuple[Images, NDArray[np.uint8]]:
        """Images (n, 28, 28) and labels (n,) of a split."""
        data = self._data
        if split in ("test", "all"):
            return data.test_images, data.test_labels
        rows = self._train_rows
        rows = rows[-VALIDATION_COUNT:] if split == "validation" else rows[:-VALIDATION_COUNT]
        return data.train_images[rows], data.train_labels[rows]

    def _split(self, split: Split) -> tuple[Images, NDArray[np.uint8]]:
        if split not in self._splits:
            self._splits[split] = self.frames(split)
        return self._splits[split]

    def sample_count(self, split: Split) -> int:
        return len(self._split(split)[1])

    def sample(self, index: int, split: Split = "test") -> tuple[Image, int]:
        images, labels = self._split(split)
        row = index % len(labels)
        return images[row], int(labels[row])

    def repeating(self, repetition: float) -> Workload:
        """A camera that sees garments again and again."""
        from runtime.workloads.garments.shelf import Shelf

        return Shelf(self._data_dir, repetition)

    def demo_scenario(self) -> Scenario:
        """A weak camera in a shared cell, with a MEC that also serves other devices."""
        return Scenario(
            fps=15.0,
            deadline_s=0.08,
            device_slowdown=120.0,
            mec_slowdown=4.0,
            mec_load_frac=0.4,
            rtt_s=0.008,
            uplink_share_frac=0.06,
            trace_start_s=30.0,
            seed=1,
        )

    def resize(self, image: Image, px: int) -> Image:
        """Area averaging with the same result on every machine; also takes a batch (n, 28, 28)."""
        return resize_area(image, px)

    def to_input(self, images: Images) -> Tensor:
        """Float (batch, 1, h, w), with mean 0 and standard deviation 1 over the training images."""
        import torch

        pixels = torch.from_numpy(images.astype(np.float32)).unsqueeze(1)
        return pixels.mul_(1.0 / (255.0 * PIXEL_STD)).sub_(PIXEL_MEAN / PIXEL_STD)

    def build(self, family: str) -> BranchyModel:
        from runtime.workloads.garments.models import build

        return build(family)

    def training_task(self, seed: int) -> TrainingTask:
        from runtime.workloads.garments.task import GarmentsTask

        return GarmentsTask(self, seed)
