"""Example workloads as users write them: one with its own frames and network, one with its own frames only."""

from __future__ import annotations

import cv2
import numpy as np

from runtime.models.blocks import conv_norm, pooled_head
from runtime.models.stages import BranchyModel
from runtime.workloads.classifier import Classifier
from runtime.workloads.garments.workload import Garments
from runtime.workloads.types import Image, Split

SPLITS: tuple[Split, ...] = ("train", "validation", "test", "all")


class Shapes(Classifier):
    """Classifies images of bars, crosses and rings in noise."""

    name = "shapes"
    class_names = ("bar", "cross", "ring")
    resolutions_px = (16, 12)
    families = ("tiny",)
    training_epochs = {"tiny": 16}  # noqa: RUF012 - as a user writes it

    def sample_count(self, split: Split) -> int:
        return 384 if split == "train" else 60

    def sample(self, index: int, split: Split = "test") -> tuple[Image, int]:
        index %= self.sample_count(split)
        rng = np.random.default_rng((SPLITS.index(split), index))
        image = rng.integers(0, 60, (16, 16), dtype=np.uint8)
        x, y = (int(value) for value in rng.integers(5, 11, 2))
        label = index % 3
        if label == 2:
            cv2.circle(image, (x, y), 4, 255)
            return image, label
        cv2.line(image, (x - 4, y), (x + 4, y), 255)
        if label == 1:
            cv2.line(image, (x, y - 4), (x, y + 4), 255)
        return image, label

    def build(self, family: str) -> BranchyModel:
        stages = [conv_norm(1, 8, 3, 2), conv_norm(8, 16, 3, 2)]
        return BranchyModel(stages, [pooled_head(8, 4, 0, 3), pooled_head(16, 2, 0, 3)], (1, 2))


class Wardrobe(Garments):
    """Its own frames for the models and the task of garments."""

    name = "wardrobe"

    def sample_count(self, split: Split) -> int:
        return 7

    def sample(self, index: int, split: Split = "test") -> tuple[Image, int]:
        return np.full((28, 28), 20 * (index % 7), np.uint8), 8
