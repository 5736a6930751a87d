"""What crosses the uplink? Arrays to bytes and back, with every size checked before memory is taken.

At cut 0 the payload is the resized u8 image: `raw` (as it is), `png`, or `jpegQ` or `webpQ` with quality Q. At later
cuts it is the float tensor (channels, h, w), quantised per channel to 8, 4, 2 or 1 bits (`u8` ... `u1`). `none` is the
codec of a decision that sends nothing. `decode` is fed by the network: whatever is wrong with the bytes raises
RemoteProtocolError.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from controller.errors import RemoteProtocolError, UsageError
from runtime.codecs.image import IMAGE_CODEC, decode_image, encode_image
from runtime.codecs.tensor import (
    TENSOR_BITS,
    Quantised,
    check_size,
    decode_tensor,
    dequantise,
    encode_tensor,
    quantise,
)

__all__ = ["NO_PAYLOAD", "TENSOR_BITS", "Quantised", "check_codec", "decode", "dequantise", "encode", "quantise"]

NO_PAYLOAD = "none"
RAW = "raw"


def check_codec(codec: str) -> None:
    """UsageError when there is no such codec."""
    if codec not in (NO_PAYLOAD, RAW, *TENSOR_BITS) and not IMAGE_CODEC.fullmatch(codec):
        raise UsageError(
            f"unknown payload codec {codec!r}; expected raw, png, jpeg1..jpeg100, webp1..webp100, "
            f"{', '.join(TENSOR_BITS)} or none"
        )


def encode(codec: str, array: NDArray[Any]) -> bytes:
    """Payload of a u8 image (h, w) or (h, w, 3), or of a float tensor (channels, h, w), by the codec's kind."""
    if codec in TENSOR_BITS:
        return encode_tensor(array, TENSOR_BITS[codec])
    if codec == RAW:
        return array.tobytes()
    if codec == NO_PAYLOAD:
        return b""
    return encode_image(codec, array)


def decode(codec: str, payload: bytes | memoryview, shape: tuple[int, ...], dtype: DTypeLike) -> NDArray[Any]:
    """The array of the given shape and dtype; RemoteProtocolError when the bytes are not that."""
    if codec in TENSOR_BITS:
        array: NDArray[Any] = decode_tensor(payload, shape, TENSOR_BITS[codec])
    elif codec == RAW:
        check_size("raw image", len(payload), math.prod(shape))
        array = np.frombuffer(payload, np.uint8).reshape(shape)
    elif IMAGE_CODEC.fullmatch(codec):
        array = decode_image(codec, bytes(payload), shape)
    else:
        raise RemoteProtocolError(f"payload codec {codec!r} carries no data; expected an image or tensor codec")
    if array.dtype != np.dtype(dtype):
        raise RemoteProtocolError(f"payload codec {codec!r} gives {array.dtype}; expected {np.dtype(dtype)}")
    return array
