"""What the map of a detector's exit should say, and the loss of what it says.

Targets are those of CenterNet (Zhou et al., 2019): a Gaussian around each centre, and the distances to the sides of the
box near it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from runtime.models.detector_parts import LOG_DISTANCES, MAP_STRIDE
from runtime.workloads.boxes import Floats

CENTRE_SPREAD = 0.12  # standard deviation of the Gaussian, as a share of the box's sides
BOX_CELLS = 0.5  # cells whose Gaussian is above this learn the box
BOX_WEIGHT = 1.0


@dataclass(frozen=True)
class TargetMaps:
    """The targets of a batch on the maps of the exits."""

    heat: Tensor  # (batch, classes, h, w) in [0, 1], 1 at a centre
    sides: Tensor  # (batch, 4, h, w) distances to the sides of the box, in cells
    box_weight: Tensor  # (batch, h, w) weight of the box loss
    heat_weight: Tensor  # (batch, h, w) weight of the heat loss: 0 in groups

    @staticmethod
    def of(
        targets: Sequence[Floats], width: int, height: int, classes: int = 1, group_aspect: float = math.inf
    ) -> TargetMaps:
        """Draw boxes (n, 4) in pixels, one array per sample, on maps of ``width`` x ``height`` cells.

        With several classes, a fifth column has the number of the class. A box wider than ``group_aspect`` times its
        height holds several objects: no heat is learned inside.
        """
        heat = np.zeros((len(targets), classes, height, width), np.float32)
        sides = np.ones((len(targets), 4, height, width), np.float32)
        heat_weight = np.ones((len(targets), height, width), np.float32)
        for row, boxes in enumerate(targets):
            highest = np.zeros((height, width), np.float32)  # over all classes
            for box, number in zip(boxes[:, :4] / MAP_STRIDE, _classes(boxes), strict=True):
                if box[2] - box[0] <= group_aspect * (box[3] - box[1]):
                    mine = _draw(highest, sides[row], box)
                    np.maximum(heat[row, number], mine, out=heat[row, number])
                else:
                    left, top, right, bottom = box.astype(int)
                    heat_weight[row, top : bottom + 1, left : right + 1] = 0.0
        highest = heat.max(1)
        heat_weight = np.maximum(heat_weight, highest > BOX_CELLS).astype(np.float32)
        box_weight = np.where(highest > BOX_CELLS, highest, 0.0).astype(np.float32)
        return TargetMaps(*(torch.from_numpy(values) for values in (heat, sides, box_weight, heat_weight)))


def _classes(boxes: Floats) -> Sequence[int]:
    return boxes[:, 4].astype(int).tolist() if boxes.shape[1] > 4 else [0] * len(boxes)


def _draw(heat: Floats, sides: Floats, box: Floats) -> Floats:
    """Draw the Gaussian and box of one object where the Gaussian is above the current values, in place; returns what
    was drawn of the Gaussian."""
    height, width = heat.shape
    left, top, right, bottom = box
    x, y = np.arange(width) + 0.5, np.arange(height) + 0.5
    at_x = min(int((left + right) / 2), width - 1)
    at_y = min(int((top + bottom) / 2), height - 1)
    spread_x = max(CENTRE_SPREAD * (right - left), 0.6)
    spread_y = max(CENTRE_SPREAD * (bottom - top), 0.6)
    profile_x = np.exp(-0.5 * ((x - x[at_x]) / spread_x) ** 2)
    profile_y = np.exp(-0.5 * ((y - y[at_y]) / spread_y) ** 2)
    mine = profile_y[:, None] * profile_x[None]
    over = (mine > heat) & (mine > 1e-3)
    heat[over] = mine[over]
    for side, distance in enumerate((x - left, y - top, right - x, bottom - y)):
        spread = np.broadcast_to(distance[None] if side % 2 == 0 else distance[:, None], heat.shape)
        sides[side][over] = np.maximum(spread[over], 0.05)
    drawn: Floats = np.where(over, mine, 0.0)
    return drawn


def exit_loss(output: Tensor, target: TargetMaps) -> tuple[Tensor, Tensor]:
    """Penalty-reduced focal loss of the heat map, and 1 - generalised IoU of the boxes (Rezatofighi et al., 2019).

    ``output`` is the map (batch, classes + 4, h, w) of an exit in training mode.
    """
    classes = target.heat.shape[1]
    logit = output[:, :classes]
    probability = logit.sigmoid().clamp(1e-4, 1 - 1e-4)
    centre = target.heat > 0.999
    at_centre = -((1 - probability) ** 2) * probability.log()
    elsewhere = -((1 - target.heat) ** 4) * probability**2 * (1 - probability).log()
    objects = centre.sum().clamp(min=1)
    heat = (target.heat_weight[:, None] * torch.where(centre, at_centre, elsewhere)).sum() / objects
    near = target.box_weight > 0
    predicted_sides = output[:, classes:].clamp(*LOG_DISTANCES).exp().movedim(1, -1)[near]
    target_sides = target.sides.movedim(1, -1)[near]
    weight = target.box_weight[near]
    box = (weight * (1.0 - generalised_iou(predicted_sides, target_sides))).sum() / weight.sum().clamp(min=1.0)
    return heat, BOX_WEIGHT * box


def generalised_iou(a: Tensor, b: Tensor) -> Tensor:
    """(n,) generalised IoU of pairs of boxes around a common point.

    ``a`` and ``b`` (n, 4) are distances from the point to the left, top, right and bottom sides.
    """
    both, either = torch.minimum(a, b), torch.maximum(a, b)
    shared = (both[:, 0] + both[:, 2]) * (both[:, 1] + both[:, 3])
    hull = (either[:, 0] + either[:, 2]) * (either[:, 1] + either[:, 3])
    union = sum((box[:, 0] + box[:, 2]) * (box[:, 1] + box[:, 3]) for box in (a, b)) - shared
    return shared / union - (hull - union) / hull
