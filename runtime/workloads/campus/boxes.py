"""Convert a detector's candidates to boxes in pixels of the frame: threshold and non-maximum suppression.

Candidates are the outputs of an exit for one frame (`runtime.models.detector_parts.Peaks`): left, top, right, bottom as
fractions of the frame, and a logit relative to the operating threshold.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from runtime.workloads.boxes import Floats, iou

NMS_IOU = 0.5
PLATEAU_F1 = 0.01  # thresholds whose F1 is within this of the best count as equally good


def kept_candidates(candidates: Floats, width: int, height: int, least_logit: float = 0.0) -> Floats:
    """(n, 5) left, top, right, bottom in pixels and logit, best first, after non-maximum suppression.

    ``candidates`` is (candidates, 5); those below ``least_logit`` are removed.
    """
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
    """(n,) whether each box matches a person that no better box has matched.

    ``boxes`` (n, 4), best first, and ``truth`` (m, 4) are corners.
    """
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
    """The mean of all logit thresholds whose F1 is close to the best, and the best F1.

    ``logits`` and ``found`` (whether each box is right) have one array (n,) per frame; ``people`` is the number of
    people in all frames. The single best threshold depends on a few frames by chance; the middle of the plateau also
    fits other frames.
    """
    all_logits, right = np.concatenate(logits), np.concatenate(found)
    order = np.argsort(-all_logits, kind="stable")
    if len(order) == 0 or people == 0:
        return 0.0, 0.0
    f1 = 2.0 * np.cumsum(right[order]) / (np.arange(1, len(order) + 1) + people)
    plateau = np.flatnonzero(f1 >= f1.max() - PLATEAU_F1)
    return float(all_logits[order[plateau]].mean()), float(f1.max())
