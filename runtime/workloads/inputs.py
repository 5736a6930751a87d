"""The input of a model: u8 pixels where the model takes them, else what the workload makes of them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

import torch
from torch import Tensor

from runtime.workloads.types import Images

if TYPE_CHECKING:
    from runtime.models.stages import BranchyModel


class Converter(Protocol):
    """The part of a workload that converts images."""

    def to_input(self, images: Images) -> Tensor:
        """Convert u8 images (batch, h, w[, 3]) to float (batch, channels, h, w)."""
        ...


def model_input(workload: Converter, model: BranchyModel, images: Images) -> Tensor:
    """Convert u8 images (batch, h, w[, 3]) to the input (batch, channels, h, w) of a model of this workload."""
    return pixels(images) if model.takes_pixels else workload.to_input(images)


def pixels(images: Images) -> Tensor:
    """A view of u8 images (batch, h, w[, 3]) as (batch, channels, h, w); nothing is copied."""
    tensor = torch.from_numpy(images)
    return tensor.unsqueeze(1) if images.ndim == 3 else tensor.permute(0, 3, 1, 2)
