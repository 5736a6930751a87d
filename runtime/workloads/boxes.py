"""How good are boxes? F1 at an intersection over union of 0.4, as counts that can be pooled over frames.

Boxes are [x, y, w, h, score] in pixels. A pair may match from IoU 0.4 on; pairs are taken greedily, best IoU first,
so the order in which boxes are listed does not matter.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

LEAST_IOU = 0.4

Boxes = Sequence[Sequence[float]]


class Counts(NamedTuple):
    """Of one frame, or summed over many."""

    right: int  # boxes that match a person
    wrong: int  # boxes that do not
    missed: int  # people without a box

    @property
    def f1(self) -> float:
        """1 when there was nothing to find and nothing was claimed."""
        wanted = 2 * self.right + self.wrong + self.missed
        return 2 * self.right / wanted if wanted else 1.0


def pooled(counts: Sequence[Counts]) -> Counts:
    """Over all frames, each box counting alike."""
    return Counts(*(sum(column) for column in zip(*counts, strict=True))) if counts else Counts(0, 0, 0)


def count_matches(prediction: Boxes, truth: Boxes, least_iou: float = LEAST_IOU) -> Counts:
    """Right, wrong and missed of one frame."""
    right = 0
    if prediction and truth:
        right = _greedy(iou(_array(prediction), _array(truth)), least_iou)
    return Counts(right, len(prediction) - right, len(truth) - right)


def iou(a: NDArray[np.float64], b: NDArray[np.float64]) -> NDArray[np.float64]:
    """(n, m) intersection over union of boxes (n, 4+) and (m, 4+), x, y, w, h first."""
    ax, ay, aw, ah = a[:, :4].T[..., None]
    bx, by, bw, bh = b[:, :4].T
    wide = np.minimum(ax + aw, bx + bw) - np.maximum(ax, bx)
    high = np.minimum(ay + ah, by + bh) - np.maximum(ay, by)
    shared = np.maximum(wide, 0.0) * np.maximum(high, 0.0)
    return np.asarray(shared / np.maximum(aw * ah + bw * bh - shared, 1e-9))


def _array(boxes: Boxes) -> NDArray[np.float64]:
    return np.asarray(boxes, np.float64)


def _greedy(overlap: NDArray[np.float64], least_iou: float) -> int:
    rows, columns = np.nonzero(overlap >= least_iou)
    pairs = list(zip(rows.tolist(), columns.tolist(), strict=True))
    free_rows, free_columns = set(rows.tolist()), set(columns.tolist())
    if len(pairs) == len(free_rows) == len(free_columns):
        return len(pairs)  # nobody is claimed twice: the usual case
    right = 0
    for row, column in sorted(pairs, key=lambda pair: -overlap[pair]):
        if row in free_rows and column in free_columns:
            free_rows.remove(row)
            free_columns.remove(column)
            right += 1
    return right
