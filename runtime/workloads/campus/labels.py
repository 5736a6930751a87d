"""Read and write the shipped labels of the campus video: boxes of every frame, made by the automatic teacher."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from runtime.workloads.datasets import VIDEO_SHA256

LABELS_PATH = Path(__file__).with_name("campus_labels.npz")


def read_labels(path: Path = LABELS_PATH) -> list[list[list[float]]]:
    """Boxes [x, y, w, h, 1.0] of every frame, in pixels."""
    with np.load(path) as stored:
        counts, boxes = stored["counts"], stored["boxes"].astype(float)
    rows = np.column_stack((boxes, np.ones(len(boxes)))).tolist()
    ends = np.cumsum(counts).tolist()
    return [rows[end - count : end] for end, count in zip(ends, counts.tolist(), strict=True)]


def write_labels(labels: Sequence[NDArray[np.floating[Any]]], path: Path = LABELS_PATH) -> None:
    """Write the boxes of each frame, (n, 4) x, y, w, h; they are rounded to whole pixels."""
    boxes = np.rint(np.concatenate(labels)).astype(np.int16)
    counts = np.array([len(frame) for frame in labels], np.uint8)
    np.savez_compressed(path, counts=counts, boxes=boxes, video_sha256=np.array(VIDEO_SHA256))
