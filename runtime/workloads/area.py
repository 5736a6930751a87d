"""Resizes u8 images by area averaging: as OpenCV does, to the last bit, where these loops are faster.

OpenCV has vector instructions for halves only. From 768 x 576 pixels to 512 x 384 or 256 x 192 it takes twice as long
as the loops of ``runtime.workloads.area_passes``, and longer than a small encoder takes for its picture.
"""

from __future__ import annotations

from functools import cache
from math import gcd
from pathlib import Path
from typing import Any

import numpy as np

from runtime.workloads import area_passes
from runtime.workloads.area_passes import AreaSpace, Ratio
from runtime.workloads.types import Image

#: More pixels for one would need wider sums.
_LARGEST_STEP = 15


def resize(image: Image, width: int, height: int) -> Image:
    """An image (h, w[, 3]) in another size; each pixel is the mean of the area that it covers."""
    ratio = _ratio(image.shape[1], width)
    if ratio is None or image.shape[0] * ratio.step_out != height * ratio.step_in or height % ratio.step_out:
        import cv2

        return np.asarray(cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA), np.uint8)
    colours = 1 if image.ndim == 2 else image.shape[2]
    lines = np.ascontiguousarray(image).reshape(image.shape[0], -1)
    small = np.empty((height, width * colours), np.uint8)
    _average()(ratio, _space(lines.shape[1]), lines, colours, small)
    return small.reshape(height, width, *image.shape[2:])


@cache
def _ratio(before: int, after: int) -> Ratio | None:
    """How a side of ``before`` pixels shrinks to ``after``; None where OpenCV is as fast or may round otherwise.

    A sum over an odd number of units is never half-way between two levels, so there is one way to round it.
    """
    common = gcd(before, after)
    step_in, step_out = before // common, after // common
    if step_out >= step_in or step_in % 2 == 0 or step_in > _LARGEST_STEP:
        return None
    starts = np.arange(step_out) * step_in  # in units of 1 / step_out of a pixel
    first, last = starts // step_out, (starts + step_in - 1) // step_out
    taps = int((last - first).max()) + 1
    first = np.minimum(first, step_in - taps)  # so that no tap is outside of the step
    pixel = (first[:, None] + np.arange(taps)) * step_out
    weight = np.minimum((starts + step_in)[:, None], pixel + step_out) - np.maximum(starts[:, None], pixel)
    return Ratio(step_in, step_out, first, np.maximum(weight, 0).astype(np.uint16))


def _space(count: int) -> AreaSpace:
    return AreaSpace(np.empty(count, np.uint16), np.empty(count, np.uint16), np.empty(count, np.uint8))


@cache
def _average() -> Any:
    """`area_passes.average`, compiled."""
    from runtime.compiler import Compiled, Sources, rules

    rules(area_passes)
    return Compiled(Sources("resizing", 5, (Path(area_passes.__file__),)), area_passes.average).always
