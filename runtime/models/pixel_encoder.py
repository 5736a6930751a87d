"""The encoder of a split that takes u8 pixels and gives signs: two convolutions, one of patches and one of 3 x 3.

Training runs it in PyTorch. The inference copy is one compiled function (``runtime.models.pixel_passes``) in float32,
since a device runs it for every frame, and where other work has filled the caches, calling four operators of PyTorch
takes as long as computing them.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from runtime.models import pixel_passes
from runtime.models.pixel_passes import BAND, COLOURS, LANES, PATCH, TAPS, EncoderSpace, EncoderWeights
from runtime.models.signs import Sign


class Pixels(nn.Module):
    """Normalised values (pixel - ``mean``) / ``std`` of u8 pixels (batch, channels, h, w)."""

    def __init__(self, mean: float, std: float) -> None:
        super().__init__()
        self.mean = mean
        self.std = std

    def forward(self, pixels: Tensor) -> Tensor:
        return pixels.float().sub_(self.mean).mul_(1.0 / self.std)


class PatchConv(nn.Module):
    """Convolution of u8 pixels (batch, 3, h, w) with a stride as large as the kernel, then a ReLU.

    Its weights are those of normalised pixels, (pixel - ``mean``) / ``std``.
    """

    def __init__(self, outputs: int, mean: float, std: float) -> None:
        super().__init__()
        self.conv = nn.Conv2d(COLOURS, outputs, PATCH, PATCH)
        self.mean = mean
        self.std = std

    def forward(self, pixels: Tensor) -> Tensor:
        return F.relu(self.conv((pixels.float() - self.mean) / self.std))


class PixelEncoder(nn.Sequential):
    """Signs (batch, outputs, h / 8, w / 8) of u8 pixels (batch, 3, h, w).

    ``between``, the channels after the first convolution, is a multiple of 4.
    """

    def __init__(self, between: int, outputs: int, mean: float, std: float) -> None:
        super().__init__(
            PatchConv(between, mean, std),
            nn.Conv2d(between, outputs, 3, 2, 1, bias=False),
            nn.BatchNorm2d(outputs, momentum=0.03),
            Sign(),
        )

    def values(self, pixels: Tensor) -> Tensor:
        """(batch, outputs, h / 8, w / 8), whose signs are the output."""
        patch, conv, norm, _ = self
        found: Tensor = norm(conv(patch(pixels)))
        return found

    def folded(self) -> CompiledPixelEncoder:
        """The inference copy."""
        return CompiledPixelEncoder(self)


class CompiledPixelEncoder(nn.Module):
    """Computes what a `PixelEncoder` in evaluation mode does, up to rounding. UsageError where numba is missing."""

    cpu_only = True

    def __init__(self, encoder: PixelEncoder) -> None:
        super().__init__()
        patch, conv, norm, _ = encoder
        assert isinstance(patch, PatchConv)
        assert isinstance(conv, nn.Conv2d)
        assert isinstance(norm, nn.BatchNorm2d)
        second = fuse_conv_bn_eval(conv.eval(), norm.eval())
        self.outputs = second.out_channels
        self.weight_counts = (patch.conv.weight.numel(), second.weight.numel())
        self._weights = _weights(patch, second)
        self._encode = compiled_encoder()
        self._spaces: dict[tuple[int, int], EncoderSpace] = {}  # by rows and columns of patches; one thread computes

    def forward(self, pixels: Tensor) -> Tensor:
        pictures = pixels.permute(0, 2, 3, 1).numpy()
        batch, height, width = pictures.shape[:3]
        rows, columns = height // PATCH, width // PATCH
        signs = np.empty((batch, (rows + 1) // 2, (columns + 1) // 2, self.outputs), np.float32)
        if (rows, columns) not in self._spaces:
            self._spaces[rows, columns] = _space(self._weights, rows, columns)
        space = self._spaces[rows, columns]
        for picture, found in zip(pictures, signs, strict=True):
            lines = np.ascontiguousarray(picture[: PATCH * rows, : PATCH * columns])
            self._encode(self._weights, space, lines.reshape(PATCH * rows, -1), found)
        return torch.from_numpy(signs).permute(0, 3, 1, 2)


@torch.no_grad()
def _weights(patch: PatchConv, second: nn.Conv2d) -> EncoderWeights:
    first, bias = patch.conv.weight / patch.std, patch.conv.bias
    assert bias is not None
    assert second.bias is not None
    bias = bias - patch.mean * first.sum((1, 2, 3))
    taps = first.permute(0, 2, 3, 1).reshape(len(first), -1)  # row, column, colour: the order of pixels
    padding = -len(second.weight) % LANES
    padded = F.pad(second.weight, (0, 0, 0, 0, 0, 0, 0, padding)), F.pad(second.bias, (0, padding))
    return EncoderWeights(*(part.contiguous().numpy().copy() for part in (taps, bias, *padded)))


def _space(weights: EncoderWeights, rows: int, columns: int) -> EncoderSpace:
    """Working space for pictures of so many patches."""
    between, outputs = len(weights.first), len(weights.second)
    h, w = (rows + 1) // 2, (columns + 1) // 2
    return EncoderSpace(
        colours=np.zeros((COLOURS, PATCH * columns), np.uint8),
        planes=np.zeros((TAPS, BAND * columns), np.float32),
        sums=np.zeros((between, BAND * columns), np.float32),
        maps=np.zeros((2, 2, between, (h + 1) * (w + 1) + 1), np.float32),
        outputs=np.zeros((outputs, h * (w + 1)), np.float32),
    )


@cache
def compiled_encoder() -> Any:
    """`pixel_passes.encode_pixels`, compiled."""
    from runtime.compiler import Compiled, Sources, sums_in

    sums_in(pixel_passes)
    sources = Sources("the encoder of pixels", 5, (Path(pixel_passes.__file__),))
    return Compiled(sources, pixel_passes.encode_pixels).always
