"""Tables of numbers as bytes of a file, compressed with zstd."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import zstandard
from numpy.typing import NDArray

_ZSTD_LEVEL = 19
_MAX_TABLE_BYTES = 1 << 30


def pack_table(table: NDArray[Any]) -> NDArray[np.uint8]:
    """(n,) the bytes of a table, in the order of its last axis."""
    return np.frombuffer(zstandard.ZstdCompressor(level=_ZSTD_LEVEL).compress(table.tobytes()), np.uint8)


def unpack_table(packed: NDArray[np.uint8], shape: tuple[int, ...], dtype: np.dtype[Any]) -> NDArray[Any]:
    """The table, which can be written to; ValueError or ZstdError when the bytes are not those of such a table.

    Its stated size is checked first, because zstandard allocates what the bytes state.
    """
    expected = math.prod(shape) * dtype.itemsize
    claimed = zstandard.frame_content_size(packed.tobytes())
    if claimed != expected or expected > _MAX_TABLE_BYTES:
        raise ValueError(f"a table of {claimed} bytes; expected {expected}")
    data = zstandard.ZstdDecompressor().decompress(packed.tobytes(), max_output_size=expected)
    return np.frombuffer(data, dtype).reshape(shape).copy()
