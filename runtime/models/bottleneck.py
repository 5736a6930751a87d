"""A small code in place of some stages of a foreign model: what makes it, and what turns it into the model's features.

The signs of `runtime.models.pixel_encoder` are one kind of code; levels of one to eight bits are the other.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from runtime.codecs.tensor import QuantisedTensor
from runtime.models.blocks import conv_norm
from runtime.models.detector_parts import Cut
from runtime.models.detectors import hourglass
from runtime.models.packed_tensors import packed
from runtime.models.packing import Shape, Shapes, is_packed, packed_shape
from runtime.models.pixel_encoder import PatchConv

CODE_STRIDE = 8  # input pixels per place of a code, or more where it is made from coarser features
HOURGLASSES = 2


class LevelEncoder(nn.Sequential):
    """A code (batch, channels, h, w) for payloads of few bits per value; training rounds it as their codecs do."""

    @classmethod
    def of_pixels(cls, between: int, outputs: int, mean: float, std: float, bits: Sequence[int]) -> LevelEncoder:
        """From u8 pixels (batch, 3, h, w), at 1/8 of their resolution."""
        return cls(PatchConv(between, mean, std), *_last(between, outputs, 2, bits))

    @classmethod
    def of_tensor(cls, inputs: int, outputs: int, stride: int, bits: Sequence[int]) -> LevelEncoder:
        """From features (batch, inputs, h, w), at 1/``stride`` of their resolution."""
        return cls(*_last(inputs, outputs, stride, bits))


def _last(inputs: int, outputs: int, stride: int, bits: Sequence[int]) -> list[nn.Module]:
    cut = Cut(1.0, codecs=tuple(QuantisedTensor(count) for count in bits))
    return [
        nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False),
        nn.BatchNorm2d(outputs, momentum=0.03),
        nn.Hardtanh(-2.0, 2.0),  # a far value would make the steps between levels coarse
        cut,
    ]


class Decoder(nn.Module):
    """The tensors at a cut of a foreign model, of its code (batch, channels, h, w).

    ``places`` has the shapes of these tensors, (channels, h, w) each, by height and width of the code. The output is
    one tensor (batch, channels, h, w), or several packed into one.
    """

    def __init__(self, channels: int, trunk: int, places: Mapping[tuple[int, int], Shapes]) -> None:
        super().__init__()
        self.places = dict(places)
        shapes = next(iter(self.places.values()))
        inner = (trunk * 3 // 2, trunk * 2)
        self.trunk = nn.Sequential(conv_norm(channels, trunk), *(hourglass(trunk, inner) for _ in range(HOURGLASSES)))
        self.ends = nn.ModuleList(
            nn.Sequential(conv_norm(trunk, trunk), nn.Conv2d(trunk, shape[0], 3, 1, 1)) for shape in shapes
        )

    def forward(self, code: Tensor) -> Tensor:
        return packed(self.maps(code))

    def maps(self, code: Tensor) -> list[Tensor]:
        """The tensors (batch, channels, h, w) one by one."""
        features = self.trunk(code)
        shapes = self.places[code.shape[-2], code.shape[-1]]
        return [end(_sized(features, shape)) for end, shape in zip(self.ends, shapes, strict=True)]

    def parts_of(self, packed: Shape) -> Shapes:
        """See `runtime.models.packing.PackingStage`."""
        shapes = next(shapes for shapes in self.places.values() if packed_shape(shapes) == packed)
        return shapes if is_packed(shapes) else ()

    @torch.no_grad()
    def scale_outputs(self, means: Sequence[Tensor], deviations: Sequence[Tensor]) -> None:
        """Let each output channel, which was trained for mean 0 and deviation 1, have these (channels,) per tensor."""
        for end, mean, deviation in zip(self.ends, means, deviations, strict=True):
            assert isinstance(end, nn.Sequential)
            last = end[-1]
            assert isinstance(last, nn.Conv2d)
            assert last.bias is not None
            last.weight.mul_(deviation[:, None, None, None])
            last.bias.mul_(deviation).add_(mean)


def _sized(features: Tensor, shape: Shape) -> Tensor:
    """Features (batch, channels, h, w) in the height and width of a tensor of that shape."""
    height, width = shape[1:]
    if (height, width) == tuple(features.shape[-2:]):
        return features
    if height >= features.shape[-2]:
        return F.interpolate(features, (height, width), mode="nearest")
    return F.adaptive_avg_pool2d(features, (height, width))
