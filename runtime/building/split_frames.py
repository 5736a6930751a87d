"""The frames of one split, read in batches because all of them may not fit into memory."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from runtime.workloads.base import Workload
from runtime.workloads.types import Image, Images, Split

RECORDED_SPLITS: tuple[Split, ...] = ("validation", "test")
BATCH_PIXELS = 200_000  # largest batch: 255 garment images, or one large photograph


@dataclass(frozen=True)
class SplitFrames:
    """The first ``count`` frames of one split, read when they are needed."""

    workload: Workload
    split: Split
    count: int

    def truths(self) -> list[Any]:
        """The truth of every frame."""
        return [self.workload.sample(index, self.split)[1] for index in range(self.count)]

    def batches(self, px: int, start: int = 0) -> Iterator[Images]:
        """All frames at one resolution, in batches u8 (n, h, w[, 3]).

        With ``start`` -n, the last n frames come before the first, as in a circle.
        """
        batch: list[Image] = []
        for index in range(start, self.count):
            batch.append(self.workload.resize(self.workload.sample(index % self.count, self.split)[0], px))
            if index + 1 == self.count or (len(batch) + 1) * _pixels(batch[0]) > BATCH_PIXELS:
                yield np.stack(batch)
                batch = []


def first_frames(workload: Workload, split: Split, max_samples: int | None) -> SplitFrames:
    """The first ``max_samples`` frames of a split; all of them with None or 0."""
    count = workload.sample_count(split)
    return SplitFrames(workload, split, min(count, max_samples or count))


def _pixels(image: Image) -> int:
    return int(image.shape[0] * image.shape[1])
