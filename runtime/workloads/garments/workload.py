"""The garments workload: which piece of clothing is this? Fashion-MNIST, ten classes, 28 x 28 grey pixels.

The 60,000 training images are split once, by a fixed permutation, into 55,000 to train on and 5,000 to validate
on; the 10,000 test images are kept apart and never chosen on. `index` counts within a split.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
from numpy.typing import NDArray

from controller.scenario import Scenario, ScenarioRange
from runtime.workloads.base import Image, Images, Split
from runtime.workloads.datasets import FashionMnist, load_fashion_mnist
from runtime.workloads.drawing import tag
from runtime.workloads.placement import Placement
from runtime.workloads.resize import resize_area

if TYPE_CHECKING:
    from torch import Tensor

    from runtime.models.stages import BranchyModel
    from runtime.models.training import TrainingTask

CLASS_NAMES = (
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
VALIDATION_COUNT = 5_000
SPLIT_SEED = 0  # not the training seed: the split is part of the workload, the same for every bundle
PIXEL_MEAN = 0.286  # of the training images, in units of 255
PIXEL_STD = 0.353


class Garments:
    """Owns the data set, read on first use."""

    name: str = "garments"
    resolutions_px: tuple[int, ...] = (28, 20, 14)
    training_epochs: Mapping[str, int] = MappingProxyType({"resnet": 18, "vgg": 14, "alexnet": 16, "mobilenet": 18})
    families: tuple[str, ...] = tuple(training_epochs)
    # No JPEG: on these images it is larger than PNG wherever it is as accurate. Validation, VGG's last exit, 28 px:
    # PNG 511 bytes 93.7 %; JPEG quality 95 672 bytes 93.6 %, 85 515 bytes 93.1 %, 75 449 bytes 92.3 %.
    image_codecs: tuple[str, ...] = ("raw", "png")
    tensor_codecs: tuple[str, ...] = ("u8", "u4")
    frame_strides: tuple[int, ...] = (1,)
    fps: float = 0.0

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

    def source_index(self, index: int, split: Split = "test") -> int:
        return index % self.sample_count(split)

    def scenario_range(self) -> ScenarioRange:
        return ScenarioRange()

    def demo_scenario(self) -> Scenario:
        """A weak camera on a shared cell, with a MEC that serves others too."""
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
        return resize_area(image, px)

    def to_input(self, images: Images) -> Tensor:
        import torch

        pixels = torch.from_numpy(images.astype(np.float32)).unsqueeze(1)
        return pixels.mul_(1.0 / (255.0 * PIXEL_STD)).sub_(PIXEL_MEAN / PIXEL_STD)

    def build(self, family: str) -> BranchyModel:
        from runtime.workloads.garments.models import build

        return build(family)

    def answers(self, outputs: NDArray[np.floating[Any]], px: int) -> list[int]:
        return [int(label) for label in outputs.argmax(axis=1)]

    def confidence(self, outputs: NDArray[np.floating[Any]], temperature: float) -> NDArray[np.float64]:
        """Largest softmax probability."""
        scaled = outputs.astype(np.float64) / temperature
        odds = np.exp(scaled - scaled.max(axis=1, keepdims=True))
        return np.asarray(1.0 / odds.sum(axis=1))

    def score(self, prediction: int, truth: int) -> float:
        return float(prediction == truth)

    def to_picture(self, prediction: int, placement: Placement) -> int:
        """A class has no place."""
        return prediction

    def draw(self, image: Image, prediction: int | None) -> Image:
        """Ten times as large, the name of the class below it."""
        large = cv2.resize(image, None, fx=10, fy=10, interpolation=cv2.INTER_NEAREST)
        drawn = np.asarray(cv2.cvtColor(large, cv2.COLOR_GRAY2BGR), np.uint8)
        if prediction is not None:
            tag(drawn, CLASS_NAMES[prediction], (10, drawn.shape[0] - 12), 0.6)
        return drawn

    def training_task(self, seed: int) -> TrainingTask:
        from runtime.workloads.garments.task import GarmentsTask

        return GarmentsTask(self, seed)
