"""The asymmetric detectors of the campus workload: a tiny encoder on the device, a heavy tail on the MEC.

The encoder costs about as much as a JPEG of the picture. Its outputs, at 1/8 of the input resolution, cross the uplink
as one bit each: their sign. `tempo` weighs how much training presses them to be the same in neighbouring frames, so
families differ in bytes per frame. The tail has more channels than any detector that is made for the device.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, nn

from runtime.models.blocks import conv_norm
from runtime.models.detectors import hourglass
from runtime.models.pixel_encoder import PixelEncoder
from runtime.models.stages import BranchyModel
from runtime.workloads.campus.models import exit_head
from runtime.workloads.campus.workload import PIXEL_MEAN, PIXEL_STD

PATCH_CHANNELS = 12  # after the first convolution, at 1/4 of the input resolution
TRUNK = 96  # channels of the tail at 1/8
HOURGLASSES = ((96, 128),) * 3  # channels at 1/16 and 1/32
HEAD = 48  # hidden channels of the exit head


@dataclass(frozen=True)
class SplitSize:
    """What tells the families apart."""

    channels: int  # levels per place at the cut
    tempo: float  # weight of the loss over time, for 8 channels


SPLIT_SIZES = {"split24": SplitSize(24, 4.0), "split8": SplitSize(8, 6.0)}


def build_split(family: str) -> BranchyModel:
    """A newly initialised model of an asymmetric family."""
    channels = SPLIT_SIZES[family].channels
    encoder = PixelEncoder(PATCH_CHANNELS, channels, PIXEL_MEAN, PIXEL_STD)
    return BranchyModel([encoder, _tail(channels)], [exit_head(TRUNK, HEAD)], (2,), takes_pixels=True)


def _tail(channels: int) -> nn.Sequential:
    return nn.Sequential(conv_norm(channels, TRUNK), *(hourglass(TRUNK, inner) for inner in HOURGLASSES))


def values_before_signs(model: BranchyModel, pixels: Tensor) -> Tensor:
    """(batch, channels, h, w) whose signs cross the uplink; the model is not folded."""
    encoder = model.stages[0]
    assert isinstance(encoder, PixelEncoder)
    return encoder.values(pixels)
