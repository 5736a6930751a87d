"""The score of boxes: F1 at an intersection over union (IoU) of 0.4, as counts that can be summed over frames.

Boxes are [x, y, w, h, score] in pixels; corners are left, top, right, bottom. Two boxes can match if their IoU is at
least 0.4. Pairs are matched greedily, highest IoU first, so the order of the boxes does not matter.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

LEAST_IOU = 0.4

Boxes = Sequence[Sequence[float]]
Floats = NDArray[np.floating[Any]]


class Counts(NamedTuple):
    """Counts of matches of one frame, or sums over several frames."""

    right: int  # boxes that match a person
    wrong: int  # boxes that match nobody
    missed: int  # people without a box

    @property
    def f1(self) -> float:
        """2 right / (2 right + wrong + missed); 1 if there are neither people nor boxes."""
        wanted = 2 * self.right + self.wrong + self.missed
        return 2 * self.right / wanted if wanted else 1.0


def pooled(counts: Sequence[Counts]) -> Counts:
    """Sums over frames, so that every box has the same weight."""
    return Counts(*(sum(column) for column in zip(*counts, strict=True))) if counts else Counts(0, 0, 0)


def count_matches(prediction: Boxes, truth: Boxes, least_iou: float = LEAST_IOU) -> Counts:
    """Right, wrong and missed boxes of one frame."""
    right = 0
    if prediction and truth:
        right = _greedy(iou_of_boxes(_array(prediction), _array(truth)), least_iou)
    return Counts(right, len(prediction) - right, len(truth) - right)


def inside(boxes: Boxes, window: tuple[int, int, int, int]) -> Boxes:
    """The boxes whose middle is in the window: x, y, w, h in pixels."""
    left, top, width, height = window
    return [
        box for box in boxes if left <= box[0] + box[2] / 2 < left + width and top <= box[1] + box[3] / 2 < top + height
    ]


def iou(a: Floats, b: Floats) -> Floats:
    """(n, m) intersection over union of corners (n, 4) and (m, 4)."""
    return _iou(a[:, :2], a[:, 2:4], a[:, 2:4] - a[:, :2], b[:, :2], b[:, 2:4], b[:, 2:4] - b[:, :2])


def iou_of_boxes(a: Floats, b: Floats) -> Floats:
    """(n, m) intersection over union of boxes (n, 4+) and (m, 4+): x, y, w, h first."""
    return _iou(a[:, :2], a[:, :2] + a[:, 2:4], a[:, 2:4], b[:, :2], b[:, :2] + b[:, 2:4], b[:, 2:4])


def _iou(low_a: Floats, high_a: Floats, sides_a: Floats, low_b: Floats, high_b: Floats, sides_b: Floats) -> Floats:
    """Takes corners and sides, each as stored: computing one from the other would round it."""
    overlap = np.minimum(high_a[:, None], high_b[None]) - np.maximum(low_a[:, None], low_b[None])
    shared = np.maximum(overlap, 0.0).prod(axis=2)
    union = sides_a.prod(axis=1)[:, None] + sides_b.prod(axis=1)[None] - shared
    return np.asarray(shared / np.maximum(union, 1e-9))


def _array(boxes: Boxes) -> NDArray[np.float64]:
    return np.asarray(boxes, np.float64)


def _greedy(overlap: Floats, least_iou: float) -> int:
    rows, columns = np.nonzero(overlap >= least_iou)
    pairs = list(zip(rows.tolist(), columns.tolist(), strict=True))
    free_rows, free_columns = set(rows.tolist()), set(columns.tolist())
    if len(pairs) == len(free_rows) == len(free_columns):
        return len(pairs)  # no box is in two pairs: the usual case
    right = 0
    for row, column in sorted(pairs, key=lambda pair: -overlap[pair]):
        if row in free_rows and column in free_columns:
            free_rows.remove(row)
            free_columns.remove(column)
            right += 1
    return right


def expected_f1(logits: Floats, temperature: float) -> NDArray[np.float64]:
    """(batch,) expected F1 if every candidate is an object with the probability that its logit (batch, n) predicts.

    Candidates with a logit of 0 or more are answers; the others only say what may have been missed.
    """
    scaled = np.clip(logits.astype(np.float64) / temperature, -50.0, 50.0)
    probability = 1.0 / (1.0 + np.exp(-scaled))
    kept = scaled >= 0.0
    right, boxes_and_objects = (probability * kept).sum(axis=1), kept.sum(axis=1) + probability.sum(axis=1)
    expected = 2.0 * right / np.maximum(boxes_and_objects, 1e-9)
    return np.asarray(np.where(kept.any(axis=1), expected, 1.0 - probability.max(axis=1)))
