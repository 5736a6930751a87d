"""`runtime.models.packing` for tensors of PyTorch; differentiable."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from runtime.models.packing import Shapes, is_packed


def packed(tensors: Sequence[Tensor]) -> Tensor:
    """(batch, values) of tensors (batch, ...); a single one (batch, channels, h, w) unchanged."""
    if not is_packed(tuple(tuple(tensor.shape[1:]) for tensor in tensors)):
        return tensors[0]
    return torch.cat([tensor.flatten(1) for tensor in tensors], 1)


def unpacked(packed: Tensor, shapes: Shapes) -> list[Tensor]:
    """The tensors (batch, ...) that were packed."""
    if not is_packed(shapes):
        return [packed.reshape(len(packed), *shapes[0])]
    parts = torch.split(packed, [math.prod(shape) for shape in shapes], 1)
    return [part.reshape(len(packed), *shape) for part, shape in zip(parts, shapes, strict=True)]
