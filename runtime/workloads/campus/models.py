"""The detectors of the campus workload: three sizes of one design (`runtime.models.detectors`)."""

from __future__ import annotations

from torch import nn

from runtime.models.detector_parts import Peaks
from runtime.models.detectors import SIZES, detector
from runtime.models.detectors import exit_head as any_exit_head
from runtime.models.stages import BranchyModel

WIDTHS_PX = (768, 512, 384, 256)  # input widths with an operating threshold each
TALL_SIDES = (0.7, 1.7, 0.7, 1.7)  # log distances to the sides, in cells: people are taller than wide


def build(family: str) -> BranchyModel:
    """A newly initialised model of a family."""
    return detector(SIZES[family], WIDTHS_PX, sides=TALL_SIDES)


def exit_head(channels: int, hidden: int) -> nn.Sequential:
    """The head that turns features at 1/8 of the input resolution into a map and its peaks."""
    return any_exit_head(channels, hidden, Peaks(WIDTHS_PX), sides=TALL_SIDES)
