"""Steps that decoders of boxes share: corners, the best class, suppression of candidates that show the same object."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from runtime.decoders.base import Floats, Size
from runtime.workloads.boxes import iou

#: Candidates that are looked at, best first. More only cost time: a crowd of 100 has about ten each.
MOST_LOOKED_AT = 1_000


def candidates(corners: Floats, scores: Floats, classes: NDArray[Any] | None = None) -> Floats:
    """(n, 6) of corners (n, 4), scores (n,), and class numbers (n,), zero where there are none."""
    kinds = np.zeros(len(scores), np.float32) if classes is None else classes
    return np.column_stack((corners, scores, kinds)).astype(np.float32)


def from_middles(middles: Floats) -> Floats:
    """Corners (n, 4) of x, y of the middle, width and height (n, 4)."""
    half = middles[:, 2:4] / 2
    return np.concatenate((middles[:, :2] - half, middles[:, :2] + half), axis=1)


def as_fractions(corners: Floats, size: Size) -> Floats:
    """Corners (n, 4) in pixels of an input of that size as fractions of it."""
    height, width = size
    return np.asarray(corners / np.array((width, height, width, height), np.float32))


def best_class(scores: Floats) -> tuple[Floats, NDArray[np.int64]]:
    """The highest of scores (n, classes), and the class that has it: (n,) each."""
    classes = scores.argmax(axis=1)
    return scores[np.arange(len(scores)), classes], classes


def suppressed(found: Floats, most_iou: float, most: int) -> Floats:
    """The best candidates (n, 6), highest score first, at most ``most``: of two of one class that overlap by more than
    ``most_iou``, the better one stays (greedy non-maximum suppression)."""
    if len(found) > MOST_LOOKED_AT:
        found = found[np.argpartition(-found[:, 4], MOST_LOOKED_AT)[:MOST_LOOKED_AT]]
    found = found[np.argsort(-found[:, 4], kind="stable")]
    kept: list[int] = []
    free = np.ones(len(found), bool)
    for row in range(len(found)):
        if not free[row]:
            continue
        kept.append(row)
        if len(kept) == most:
            break
        same = found[:, 5] == found[row, 5]
        free &= ~(same & (iou(found[row : row + 1, :4], found[:, :4])[0] > most_iou))
    return found[kept]


def sigmoid(logits: Any) -> Floats:
    """1 / (1 + exp(-x)), without overflow."""
    return np.asarray(1.0 / (1.0 + np.exp(-np.clip(logits, -50.0, 50.0))))


def softmax(logits: Floats) -> Floats:
    """Over the last axis."""
    odds = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return np.asarray(odds / odds.sum(axis=-1, keepdims=True))
