"""Answers of detectors: candidates to boxes in pixels of the frame, and their score by class."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import numpy as np

from runtime.decoders.boxes import suppressed
from runtime.workloads.boxes import Boxes, Counts, count_matches, pooled
from runtime.workloads.placement import Placement
from runtime.workloads.types import Outputs

LEAST_IOU = 0.5  # of two boxes that show the same object
CLASS = 5  # column of a box


def boxes_of(
    candidates: Outputs, size: tuple[int, int], placement: Placement, nms_iou: float, most: int
) -> list[list[float]]:
    """[x, y, w, h, score, class] in pixels of the frame, best first, of the candidates (n, 5 or 6) of one frame.

    ``size``: height and width of the input that the sides are fractions of. ``placement``: of the frame in it.
    """
    likely = candidates[candidates[:, 4] >= 0.0].astype(np.float64)
    if likely.shape[1] == CLASS:
        likely = np.column_stack((likely, np.zeros(len(likely))))
    kept = suppressed(likely, nms_iou, most)
    height, width = size
    boxes = []
    for left, top, right, bottom, logit, kind in kept.tolist():
        corner = left * width, top * height, (right - left) * width, (bottom - top) * height
        score = 1.0 / (1.0 + np.exp(-min(max(logit, -50.0), 50.0)))
        boxes.append([*corner, round(float(score), 4), int(kind)])
    return placement.boxes(boxes)


def counts_of(prediction: Boxes, truth: Boxes) -> Counts:
    """Right, wrong and missed boxes of one frame: boxes match within their class, at an IoU of 0.5 or more."""
    found, wanted = _by_class(prediction), _by_class(truth)
    return pooled([count_matches(found[kind], wanted[kind], LEAST_IOU) for kind in found.keys() | wanted.keys()])


def _by_class(boxes: Boxes) -> dict[int, list[Sequence[Any]]]:
    classes: dict[int, list[Sequence[Any]]] = defaultdict(list)
    for box in boxes:
        classes[int(box[CLASS]) if len(box) > CLASS else 0].append(box)
    return classes
