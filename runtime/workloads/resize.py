"""Resize u8 images by area averaging in exact arithmetic, with the same result on every machine.

Every output pixel is the mean of the input area that it covers. Overlaps are integers (in units of a common fraction of
a pixel), and sums stay below 2**24, so float32 matrix products are exact. Predictions that were recorded on one machine
are therefore valid on every other.
"""

from __future__ import annotations

from functools import cache
from math import gcd

import numpy as np
from numpy.typing import NDArray


@cache
def area_overlaps(size_in: int, size_out: int) -> tuple[NDArray[np.float32], int]:
    """Overlap of each output pixel with each input pixel, (size_out, size_in), and the sum of a row."""
    common = gcd(size_in, size_out)
    unit_in, unit_out = size_out // common, size_in // common
    starts_in = np.arange(size_in) * unit_in
    starts_out = np.arange(size_out)[:, None] * unit_out
    ends = np.minimum(starts_in + unit_in, starts_out + unit_out)
    overlap = np.maximum(ends - np.maximum(starts_in, starts_out), 0)
    return overlap.astype(np.float32), unit_out


def resize_area(images: NDArray[np.uint8], px: int) -> NDArray[np.uint8]:
    """Resize images (..., h, w) to (..., px, px) by area averaging, rounding half up."""
    height, width = images.shape[-2:]
    if (height, width) == (px, px):
        return images
    rows, row_sum = area_overlaps(height, px)
    columns, column_sum = area_overlaps(width, px)
    total = row_sum * column_sum
    sums = (rows @ images.astype(np.float32) @ columns.T).astype(np.int32)
    return ((2 * sums + total) // (2 * total)).astype(np.uint8)
