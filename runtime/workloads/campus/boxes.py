"""Boxes from a detector's candidates: pixels of the original frame, after non-maximum suppression.

Candidates are the outputs of an exit for a frame (`detector_parts.Peaks`): left, top, right, bottom as fractions of the
frame, and a logit relative to the operating threshold.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from runtime.workloads.boxes import Floats, iou

NMS_IOU = 0.5
PLATEAU_F1 = 0.01  # this far below the greatest F1 counts as equally good


def kept_candidates(candidates: Floats, width: int, height: int, least_logit: float = 0.0) -> Floats:
    """Rows (n, 5) left, top, right, bottom in pixels and logit, best first, without those that cover a better one."""
    likely = candidates[candidates[:, 4] >= least_logit].astype(np.float64)
    likely = likely[np.argsort(-likely[:, 4], kind="stable")]
    likely[:, :4] = np.clip(likely[:, :4], 0.0, 1.0) * (width, height, width, height)
    overlap = iou(likely[:, :4], likely[:, :4]) > NMS_IOU
    kept: list[int] = []
    for row in range(len(likely)):
        if not overlap[row, kept].any():
            kept.append(row)
    return np.asarray(likely[kept])


def hits(boxes: Floats, truth: Floats, least_iou: float) -> NDArray[np.bool_]:
    """Which boxes (best first) match a person that no better box has matched; both are corners."""
    found = np.zeros(len(boxes), bool)
    free = np.ones(len(truth), bool)
    overlap = iou(boxes, truth)
    for row in range(len(boxes)):
        gain = np.where(free, overlap[row], 0.0)
        if len(truth) and gain.max() >= least_iou:
            found[row] = True
            free[gain.argmax()] = False
    return found


def best_threshold(logits: Sequence[Floats], found: Sequence[NDArray[np.bool_]], people: int) -> tuple[float, float]:
    """The mean of all logit thresholds with nearly the greatest F1 over many frames, and that greatest F1.

    The best threshold depends on a few frames by chance; the middle of the plateau holds on other frames, too.
    """
    every, right = np.concatenate(logits), np.concatenate(found)
    order = np.argsort(-every, kind="stable")
    if len(order) == 0 or people == 0:
        return 0.0, 0.0
    f1 = 2.0 * np.cumsum(right[order]) / (np.arange(1, len(order) + 1) + people)
    plateau = np.flatnonzero(f1 >= f1.max() - PLATEAU_F1)
    return float(every[order[plateau]].mean()), float(f1.max())
