"""The arrays that the passes work on; see ``runtime.codecs.signs.passes``."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from runtime.codecs.signs.contexts import Values
from runtime.codecs.signs.passes import Space


def space_of(before: Values) -> Space:
    """The arrays of a pass over one tensor, given the memory of its reference, which stays as it is."""
    rows, columns, channels = before.shape
    index = np.empty((rows - 2, (columns - 2) * channels), np.uint16)
    moved = np.zeros((2, rows, columns), np.int32)
    return Space(before.reshape(rows, -1), before.reshape(rows, -1).copy(), index, moved, channels)


def rows_of(array: NDArray[Any]) -> NDArray[np.float32]:
    """Values (channels, h, w) row by row: (h, w * channels). That is how engines keep tensors: little is copied."""
    return np.ascontiguousarray(array.transpose(1, 2, 0), np.float32).reshape(array.shape[1], -1)
