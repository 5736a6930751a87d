"""The first layer of a model that takes u8 pixels: a convolution of patches, with the normalisation in its weights."""

from __future__ import annotations

import copy

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class PatchConv(nn.Module):
    """Convolution of u8 pixels (batch, channels, h, w) with a stride as large as the kernel, then a ReLU.

    Training learns weights for normalised pixels, (pixel - ``mean``) / ``std``. `folded` returns the inference copy,
    which holds the normalisation in its weights. Patches do not overlap and there is no padding, so the two are equal
    but for rounding.
    """

    def __init__(self, inputs: int, outputs: int, patch: int, mean: float, std: float) -> None:
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, patch, patch)
        self.mean = mean
        self.std = std

    def forward(self, pixels: Tensor) -> Tensor:
        return F.relu(self.conv((pixels.float() - self.mean) / self.std))

    @torch.no_grad()
    def folded(self) -> nn.Sequential:
        """The inference copy."""
        conv = copy.deepcopy(self.conv)
        conv.weight.div_(self.std)
        if conv.bias is not None:
            conv.bias.sub_(self.mean * conv.weight.sum((1, 2, 3)))
        return nn.Sequential(ToFloat(), conv, nn.ReLU(inplace=True))


class ToFloat(nn.Module):
    """u8 pixels as float32, in the same memory order."""

    def forward(self, pixels: Tensor) -> Tensor:
        return pixels.float()
