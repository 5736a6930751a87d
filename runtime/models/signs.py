"""The cut of a model whose levels cross the uplink as one bit each: the sign, and how it is trained.

A sign has no useful gradient. In training it passes straight through where the value is near 0 (Hubara et al.,
*Binarized neural networks*, 2016), and noise teaches the network to keep values away from 0. A penalty on pairs of
neighbouring frames makes levels stable in time and rare, because a level that is as expected costs few bits.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

NOISE = 0.3  # standard deviation of what training adds to values, whose own deviation is near 1 (batch norm)
PASSED = 1.5  # gradient passes where the absolute value is smaller
STEEPNESS = 3.0  # of the sigmoid that stands for a sign in the penalty
DENSITY_WEIGHT = 0.02  # of the share of positive levels, relative to that of their changes
_ONE = torch.ones(())  # without dimensions, so the result has the type of the other operand


class Sign(nn.Module):
    """The sign of each value: exactly -1 or +1."""

    def forward(self, z: Tensor) -> Tensor:
        if self.training:
            signs: Tensor = _StraightThrough.apply(z + NOISE * torch.randn_like(z))  # type: ignore[no-untyped-call]
            return signs
        return sign_of(z)


def sign_of(z: Tensor) -> Tensor:
    """-1 or +1 by the sign bit: a fifth of the time of `torch.where(z > 0, 1.0, -1.0)`, which counts on the device."""
    return torch.copysign(_ONE, z)


class _StraightThrough(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, z: Tensor) -> Tensor:
        ctx.save_for_backward(z)
        return sign_of(z)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        z: Tensor
        (z,) = ctx.saved_tensors
        return gradient * (z.abs() < PASSED)


def change_and_density(values: Tensor, following: Tensor) -> tuple[Tensor, Tensor]:
    """Expected changed levels, and expected positive levels, per place of the map.

    ``values`` and ``following`` (batch, channels, h, w) are what a `Sign` gets for frames and for their neighbours.
    """
    soft, next_soft = (torch.sigmoid(STEEPNESS * part.float()) for part in (values, following))
    channels = values.shape[1]
    return (soft - next_soft).abs().mean() * channels, soft.mean() * channels
