"""The first layer of a model that takes u8 pixels: a convolution of patches, with the normalisation in its weights.

On x86 processors the inference copy multiplies the pixels as they are with weights of 8 bits. At 384 x 288 pixels and
12 outputs that takes 50 us; converting the pixels to float32 and a float32 convolution take 100 us (one thread, AVX-512
with VNNI). Weights have a scale for each output, and results are float32.
"""

from __future__ import annotations

import copy

import torch
import torch.nn.functional as F
from torch import Tensor, nn

#: Largest difference from float32 that the 8-bit convolution may show, as a share of the largest output.
TOLERANCE = 0.02


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
    def folded(self) -> nn.Module:
        """The inference copy: in 8 bits where this machine can, else in float32."""
        exact = self.folded_in_float()
        return _in_8_bits(exact) or exact

    @torch.no_grad()
    def folded_in_float(self) -> nn.Sequential:
        """The inference copy in float32."""
        conv = copy.deepcopy(self.conv).requires_grad_(False)
        conv.weight.div_(self.std)
        assert conv.bias is not None
        conv.bias.sub_(self.mean * conv.weight.sum((1, 2, 3)))
        return nn.Sequential(ToFloat(), conv, nn.ReLU(inplace=True))


class ToFloat(nn.Module):
    """u8 pixels as float32, in the same memory order."""

    def forward(self, pixels: Tensor) -> Tensor:
        return pixels.float()


class PixelConv(nn.Module):
    """A convolution without padding of u8 pixels with 8-bit weights, then a ReLU; float32 (batch, outputs, h, w).

    It runs the oneDNN operator of PyTorch's own quantised models. RuntimeError or AttributeError where PyTorch was
    built without it.
    """

    def __init__(self, conv: nn.Conv2d) -> None:
        super().__init__()
        self.kernel_size = conv.kernel_size
        self.stride = conv.stride
        self.out_channels = conv.out_channels
        self.weight_count = conv.weight.numel()
        self._bias = conv.bias
        self._scales = conv.weight.abs().amax((1, 2, 3)).clamp(min=1e-12) / 127.0
        self._zeros = torch.zeros(len(self._scales), dtype=torch.int32)
        levels = (conv.weight / self._scales[:, None, None, None]).round().to(torch.int8).contiguous()
        self._geometry = (list(self.stride), [0, 0], [1, 1], 1)  # stride, padding, dilation, groups
        self._packed = torch.ops.onednn.qconv_prepack(levels, self._scales, 1.0, 0, *self._geometry, None)

    def forward(self, pixels: Tensor) -> Tensor:
        weights = (self._packed, self._scales, self._zeros, self._bias)
        # Scale 1 and zero point 0 of the pixels; scale and zero point of a quantised output, which this one is not.
        output: Tensor = torch.ops.onednn.qconv2d_pointwise.default(
            pixels, 1.0, 0, *weights, *self._geometry, 1.0, 0, torch.float32, "relu", [], ""
        )
        return output


def _in_8_bits(exact: nn.Sequential) -> PixelConv | None:
    """The 8-bit copy of a folded convolution; None where PyTorch lacks it, or its sums overflow (old processors)."""
    conv = exact[1]
    assert isinstance(conv, nn.Conv2d)
    side = 4 * conv.kernel_size[0]
    noise = torch.randint(0, 256, (1, conv.in_channels, side, side), generator=torch.Generator().manual_seed(0))
    try:
        quantised = PixelConv(conv)
        for picture in (noise, torch.full_like(noise, 255)):
            pixels = picture.to(torch.uint8).contiguous(memory_format=torch.channels_last)
            expected = exact(pixels)
            if (quantised(pixels) - expected).abs().max() > TOLERANCE * expected.max():
                return None
    except (AttributeError, RuntimeError, TypeError):
        return None
    return quantised
