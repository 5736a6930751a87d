"""The training task of the asymmetric campus detectors: that of the others, and a loss over pairs of frames.

Each training crop has a neighbour: one of the next frames of the video, changed by the same augmentation (people pasted
at the same place, view, mirror image, colours, JPEG quality). The loss over time sees only the levels at the cut of the
two.
"""

from __future__ import annotations

import copy
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from runtime.models.signs import DENSITY_WEIGHT, change_and_density
from runtime.models.training import Group, Scalars
from runtime.workloads.boxes import Floats
from runtime.workloads.campus.split_models import values_before_signs
from runtime.workloads.campus.task import CampusTask
from runtime.workloads.inputs import pixels
from runtime.workloads.types import Image

if TYPE_CHECKING:
    from runtime.models.stages import BranchyModel
    from runtime.workloads.base import Workload

CROPS = {768: (384, 288, 3), 512: (384, 288, 4), 384: (384, 288, 5), 256: (256, 192, 6)}  # width, height, pairs
MOST_LAG = 3  # frames between the two of a pair; as many as an uplink of some kbit/s makes of a reference
TEMPO_CHANNELS = 8  # changed levels per this many channels weigh as much as `tempo` says


class SplitTask(CampusTask):
    """Owns what `CampusTask` owns. ``tempo`` is the weight of the loss over time."""

    def __init__(self, workload: Workload, seed: int, tempo: float) -> None:
        super().__init__(workload, seed)
        self.crops = CROPS
        self._tempo = tempo

    def group(self, px: int, rng: np.random.Generator) -> Group:
        pairs = [self._pair(px, rng) for _ in range(self.crops[px][2])]
        frames, following = (pixels(np.stack(images)) for images in list(zip(*pairs, strict=True))[:2])
        own_loss = partial(loss_over_time, frames=frames, following=following, tempo=self._tempo)
        return Group(frames, [boxes for _, _, boxes in pairs], 1.0 / len(self.crops), own_loss)

    def _pair(self, px: int, rng: np.random.Generator) -> tuple[Image, Image, Floats]:
        """A crop, its neighbour in time, and the boxes of the crop."""
        row = self.draw_row(rng)
        later = row + int(rng.integers(1, MOST_LAG + 1))
        neighbour = later if later < len(self.frames) else row - (later - row)
        following, _ = self.augmented(self.frames[neighbour], row, px, copy.deepcopy(rng))
        image, boxes = self.augmented(self.frames[row], row, px, rng)
        return image, following, boxes


def loss_over_time(model: BranchyModel, *, frames: Tensor, following: Tensor, tempo: float) -> tuple[Tensor, Scalars]:
    """``tempo`` x (changed levels between neighbouring frames + weighted positive levels), in soft levels."""
    values = values_before_signs(model, torch.cat((frames, following)))
    change, density = change_and_density(*values.chunk(2))
    loss = tempo * (change / TEMPO_CHANNELS + DENSITY_WEIGHT * density)
    return loss, {"loss/change": change.item(), "loss/density": density.item()}
