"""Weights of few bits: one of 2^bits - 1 levels (of two for one bit) times a scale per output channel.

One bit is a sign times the mean absolute value of its channel, which is the best scale for signs (binary weight
networks; Rastegari et al., XNOR-Net, 2016, section 3.1). Of more bits the levels are symmetric around 0, and the scale
is the largest absolute value of the channel / the top level. Training rounds the weights in every step and passes the
gradient straight through to the weights that it keeps (Courbariaux et al., 2015).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TypeAlias

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from runtime.models.stages import BranchyModel

#: Powers of two, so that no code crosses the border of a byte.
BITS = (1, 2, 4, 8)
#: With fewer bits than this, the layers that a network can least spare bits in stay as they are.
_SPARING_BITS = 4

Weighted: TypeAlias = nn.Conv2d | nn.Linear


def top_level(bits: int) -> int:
    """The largest level; the smallest is its negative."""
    return 1 if bits == 1 else 2 ** (bits - 1) - 1


def levels_and_scale(weight: Tensor, bits: int) -> tuple[Tensor, Tensor]:
    """Levels of a weight (outputs, ...) as float integers, and the scale (outputs,)."""
    flat = weight.detach().flatten(1)
    if bits == 1:
        return torch.where(weight.detach() >= 0, 1.0, -1.0), flat.abs().mean(1)
    scale = flat.abs().amax(1) / top_level(bits)
    return (weight.detach() / _wide(scale.clamp(min=1e-12), weight)).round(), scale


def rounded(weight: Tensor, bits: int) -> Tensor:
    """The weight in float with only the levels of that many bits. Rounding it again changes nothing."""
    levels, scale = levels_and_scale(weight, bits)
    return levels * _wide(scale, weight)


def _wide(scale: Tensor, weight: Tensor) -> Tensor:
    return scale.reshape(-1, *[1] * (weight.ndim - 1))


class _Rounded(nn.Module):
    """What a layer sees of its weight in training."""

    def __init__(self, bits: int) -> None:
        super().__init__()
        self.bits = bits

    def forward(self, weight: Tensor) -> Tensor:
        return weight + (rounded(weight, self.bits) - weight).detach()


def rounded_layers(model: BranchyModel, bits: int) -> dict[str, Weighted]:
    """The layers whose weights get few bits, by name.

    With one or two bits, these keep theirs: the first layer, the last of each exit head, and depthwise convolutions,
    which have few weights and need all of them.
    """
    found = dict(_weighted(model))
    if bits >= _SPARING_BITS:
        return found
    spared = [next(iter(found)), *output_layers(model)]
    return {
        name: layer
        for name, layer in found.items()
        if name not in spared and not (isinstance(layer, nn.Conv2d) and layer.groups > 1)
    }


def output_layers(model: BranchyModel) -> list[str]:
    """The names of the last layer of each exit head."""
    return [[name for name, _ in _weighted(head, f"exits.{number}.")][-1] for number, head in enumerate(model.exits)]


def _weighted(module: nn.Module, prefix: str = "") -> Iterator[tuple[str, Weighted]]:
    for name, part in module.named_modules():
        if isinstance(part, nn.Conv2d | nn.Linear):
            yield prefix + name, part


def round_in_training(model: BranchyModel, bits: int) -> BranchyModel:
    """Change a model in place so that its layers see rounded weights; returns the model."""
    for layer in rounded_layers(model, bits).values():
        parametrize.register_parametrization(layer, "weight", _Rounded(bits))
    return model


def keep_rounded(model: BranchyModel) -> BranchyModel:
    """End `round_in_training` in place: the rounded weights are the weights; returns the model."""
    for part in model.modules():
        if parametrize.is_parametrized(part):
            parametrize.remove_parametrizations(part, "weight", leave_parametrized=True)
    return model
