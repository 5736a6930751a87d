"""Branchy detectors of one design, with stem, bottleneck, hourglasses and exits, in three sizes.

The stem ends in a **bottleneck** of a few channels at 1/8 of the input resolution: the cut with the smallest payload.
In training, tensors at the cuts are sometimes quantised as the payload codecs do it (`Cut`), so one set of weights
serves every bit width. A penalty makes the bottleneck sparse, so that its payload is small.

The following blocks work at 1/16 of the input resolution, where computing is cheap and the receptive field large. In
training, an exit head returns a map at 1/4 of the input resolution with a logit for each class and four sides per cell.
For inference it returns only the highest peaks of that map (`Peaks`), which take some hundred bytes at any resolution.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from runtime.models.blocks import conv_norm
from runtime.models.detector_parts import MAP_STRIDE, PEAKS, SIDES, Cut, Peaks
from runtime.models.stages import BranchyModel, Residual

COLOURS = 3
QUANTISED_FRAC = 0.5  # share of training samples whose bottleneck is quantised
LATE_QUANTISED_FRAC = 0.15  # the same at later cuts
SPARSITY_WEIGHT = 0.02  # of the bottleneck's L1/L2 ratio (Hoyer, 2004): 1 for a flat channel, near 0 for a single peak
RARE = -4.0  # logit that a new head starts with: few cells are the middle of an object
LONG_SIDES = (1.2, 1.2, 1.2, 1.2)  # log distances that a new head starts with, where nothing is known of the objects


@dataclass(frozen=True)
class Size:
    """What tells the sizes apart."""

    stem: tuple[int, ...]  # channels: at 1/4 of the input, at 1/8, then residuals of the same width
    bottleneck: int  # channels at the cut after the stem
    trunk: int  # channels after the bottleneck
    blocks: tuple[tuple[int, ...], ...]  # per stage after the bottleneck: channels at 1/16, at 1/32; (): no hourglass
    exit_after: tuple[int, ...]
    head: int  # hidden channels of an exit head


SIZES = {
    "nano": Size((16, 32), 8, 32, ((), (48,), (48, 64)), (2, 3, 4), 16),
    "small": Size((24, 48, 48), 8, 48, ((), (64, 80), (64, 80)), (2, 3, 4), 24),
    "medium": Size((24, 64, 64), 8, 64, ((96,), (96, 128), (96, 128)), (2, 3, 4), 32),
}


def detector(
    size: Size,
    widths_px: tuple[int, ...],
    classes: int = 1,
    peaks: int = PEAKS,
    colours: int = COLOURS,
    sides: Sequence[float] = LONG_SIDES,
) -> BranchyModel:
    """A newly initialised detector for inputs (batch, colours, h, w), with an operating threshold for each width.

    ``sides`` are the log distances, in cells, that its heads start with: left, top, right, bottom.
    """
    stages: list[nn.Module] = [_stem(size.stem, size.bottleneck, colours)]
    channels = size.bottleneck
    for inner in size.blocks:
        entry = [conv_norm(channels, size.trunk)] if channels != size.trunk else []
        blocks = [hourglass(size.trunk, inner)] if inner else []
        stages.append(nn.Sequential(*entry, *blocks, Cut(LATE_QUANTISED_FRAC)))
        channels = size.trunk
    exits = [exit_head(size.trunk, size.head, Peaks(widths_px, classes, peaks), sides=sides) for _ in size.exit_after]
    return BranchyModel(stages, exits, size.exit_after)


def _stem(channels: tuple[int, ...], bottleneck: int, colours: int) -> nn.Sequential:
    """The stem: from the input to the bottleneck at 1/8 of its resolution."""
    first, second, *more = channels
    layers: list[nn.Module] = [
        nn.Sequential(nn.Conv2d(colours, first, 7, 4, 2, bias=False), nn.BatchNorm2d(first, momentum=0.03), nn.ReLU()),
        conv_norm(first, second, 3, 2),
    ]
    layers += [Residual(conv_norm(second, width, relu=False), nn.Identity()) for width in more]
    return nn.Sequential(*layers, conv_norm(second, bottleneck, 1), Cut(QUANTISED_FRAC, SPARSITY_WEIGHT))


class Hourglass(Residual):
    """A residual block whose main path works at half the resolution; where that rounds up, it is cut to fit."""

    def forward(self, x: Tensor) -> Tensor:
        height, width = x.shape[-2:]
        output: Tensor = self.final(self.main(x)[..., :height, :width] + self.shortcut(x))
        return output


def hourglass(channels: int, inner: tuple[int, ...]) -> Hourglass:
    """A residual block whose main path works at half the resolution, nested once for each number in ``inner``."""
    width, *more = inner
    layers: list[nn.Module] = [conv_norm(channels, width, 3, 2)]
    layers += [hourglass(width, tuple(more))] if more else []
    layers += [conv_norm(width, width), conv_norm(width, channels, 1, relu=False), nn.Upsample(scale_factor=2)]
    return Hourglass(nn.Sequential(*layers), nn.Identity())


def exit_head(
    channels: int, hidden: int, peaks: Peaks, stride: int = 8, sides: Sequence[float] = LONG_SIDES
) -> nn.Sequential:
    """The head that turns features at 1/``stride`` of the input resolution (a power of two, at least 4) into a map and
    its peaks."""
    upscale = stride // MAP_STRIDE
    last = nn.Conv2d(hidden, (peaks.classes + SIDES) * upscale**2, 1)
    prior = torch.tensor([RARE] * peaks.classes + list(sides))
    with torch.no_grad():
        last.weight.mul_(0.1)
        last.bias.copy_(prior.repeat_interleave(upscale**2))  # type: ignore[union-attr]
    return nn.Sequential(conv_norm(channels, hidden), last, nn.PixelShuffle(upscale), peaks)
