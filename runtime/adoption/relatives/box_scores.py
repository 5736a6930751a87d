"""Operating thresholds of exits that give boxes, chosen on validation frames."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import nn

from runtime.models.detector_parts import NO_PEAK, Peaks
from runtime.workloads.adopted.detections import LEAST_IOU
from runtime.workloads.boxes import Floats
from runtime.workloads.campus.boxes import best_threshold, hits, kept_candidates

KIND = 5  # column of a candidate


@torch.no_grad()
def calibrated(
    exit_head: nn.Module, candidates: Sequence[Floats], truths: Sequence[Floats], size: tuple[int, int]
) -> float:
    """Set the operating threshold of an exit at a resolution to the best one; returns its F1 over all boxes.

    ``candidates`` (n, 5 or 6) and ``truths`` (m, 5) have one array per frame; ``size``: height and width of the
    picture.
    """
    peaks = next(module for module in exit_head.modules() if isinstance(module, Peaks))
    threshold, f1 = operating_point(candidates, truths, size)
    peaks.calibrate(size[1], threshold)
    return f1


def operating_point(
    candidates: Sequence[Floats], truths: Sequence[Floats], size: tuple[int, int]
) -> tuple[float, float]:
    """The best threshold, relative to the present one, and its F1 over all boxes."""
    height, width = size
    logits, found, objects = [], [], 0
    for rows, truth in zip(candidates, truths, strict=True):
        kinds = rows[:, KIND] if rows.shape[1] > KIND else np.zeros(len(rows))
        for kind in np.unique(np.concatenate((kinds[rows[:, 4] > NO_PEAK / 4], truth[:, 4]))):
            wanted = truth[truth[:, 4] == kind, :4]
            boxes = kept_candidates(rows[kinds == kind, :5], width, height, NO_PEAK / 4)
            logits.append(boxes[:, 4])
            found.append(hits(boxes[:, :4], wanted, LEAST_IOU))
        objects += len(truth)
    return best_threshold(logits, found, objects) if logits else (0.0, 0.0)
