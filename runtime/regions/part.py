"""The part of a picture that a window shows."""

from __future__ import annotations

import numpy as np

from controller.records import Region
from controller.regions import Window
from runtime.workloads.placement import Placement
from runtime.workloads.types import Image


def part_of(picture: Image, window: Window) -> Image:
    """The pixels (h, w[, 3]) of a window, one after another."""
    x, y, width, height = window
    return np.ascontiguousarray(picture[y : y + height, x : x + width])


def moved_region(region: Region, seen: int, placement: Placement) -> Region:
    """A region of the frame in pixels of the picture that was placed in it; ``seen`` items are within that picture.

    Empty where it shows none of the picture.
    """
    moved = placement.boxes([[region.x, region.y, region.width, region.height]])
    x, y, width, height = moved[0] if moved else (0.0, 0.0, 0.0, 0.0)
    return Region(x, y, width, height, seen)
