"""A codec of tensors: half precision, compressed. Nearly without loss, for cuts that quantisation harms."""

import math
from typing import Any

import numpy as np
import zstandard
from numpy.typing import NDArray

from controller.errors import RemoteProtocolError
from runtime.codecs import TENSOR, Codec, check_size

LARGEST = float(np.finfo(np.float16).max)


class HalfPrecision(Codec):
    """All low bytes, then all high ones, which hold signs and exponents and compress well."""

    name = "f16"
    kind = TENSOR

    def encode(self, array: NDArray[Any]) -> bytes:
        halves = np.clip(array, -LARGEST, LARGEST).astype("<f2")
        return zstandard.compress(halves.reshape(-1, 1).view(np.uint8).T.tobytes(), 1)

    def decode(self, payload: bytes | memoryview, shape: tuple[int, ...]) -> NDArray[Any]:
        size = 2 * math.prod(shape)
        try:  # the payload comes from the network: what it states is checked before memory is taken for it
            check_size("a half-precision tensor", zstandard.frame_content_size(payload), size)
            data = zstandard.ZstdDecompressor().decompress(payload, max_output_size=size, allow_extra_data=False)
        except zstandard.ZstdError as error:
            raise RemoteProtocolError(f"a half-precision tensor that does not decompress: {error}") from None
        values = np.frombuffer(data, np.uint8).reshape(2, -1).T.copy().view("<f2").reshape(shape)
        if not np.isfinite(values).all():
            raise RemoteProtocolError("a half-precision tensor with values that are not finite")
        return values.astype(np.float32)
