"""What crosses the uplink? Arrays to bytes and back, with every size checked before memory is taken.

At cut 0 the payload is the resized u8 image: `raw` (as it is), `png`, or `jpegQ` with quality Q. At later cuts it
is the float tensor (channels, h, w), quantised per channel to 8 or 4 bits (`u8`, `u4`):

    flag (1 byte: 0 stored, 1 zstd) | low (float16 x channels) | step (float16 x channels) | packed levels

    value = low + step * level,  level = round((value - low) / step)

where low is the channel's minimum and step its range over the number of intervals. `none` is the codec of a
decision that sends nothing. `decode` is fed by the network: whatever is wrong with the bytes raises
RemoteProtocolError.
"""

from __future__ import annotations

import math
import re
import struct
import threading
from dataclasses import dataclass
from typing import Any

import numpy as np
import zstandard
from numpy.typing import DTypeLike, NDArray

from controller.errors import RemoteProtocolError, UsageError

NO_PAYLOAD = "none"
TENSOR_BITS = {"u8": 8, "u4": 4}
ZSTD_LEVEL = 1
_STORED, _ZSTD = 0, 1
_JPEG = re.compile(r"jpeg([1-9]\d?|100)")
_FLOAT16_MAX = 65504.0
#: zstandard's contexts are not safe to share between threads.
_contexts = threading.local()


@dataclass(frozen=True)
class Quantised:
    """Levels and per-channel scales of a batch of tensors."""

    levels: NDArray[np.uint8]  # (batch, channels, h, w)
    low: NDArray[np.float16]  # (batch, channels)
    step: NDArray[np.float16]  # (batch, channels)


def quantise(tensors: NDArray[np.float32], bits: int) -> Quantised:
    """Affine quantisation of (batch, channels, h, w), a scale for each sample and channel."""
    flat = tensors.reshape(*tensors.shape[:2], -1)
    top_level = (1 << bits) - 1
    low = _to_float16(flat.min(axis=2))
    step = _to_float16((flat.max(axis=2) - low.astype(np.float32)) / top_level)
    divisor = np.where(step > 0, step, np.float16(1)).astype(np.float32)
    levels = (flat - low.astype(np.float32)[..., None]) / divisor[..., None]
    levels = np.clip(np.rint(levels), 0, top_level).astype(np.uint8)
    return Quantised(levels.reshape(tensors.shape), low, step)


def _to_float16(values: NDArray[np.float32]) -> NDArray[np.float16]:
    return np.clip(values, -_FLOAT16_MAX, _FLOAT16_MAX).astype(np.float16)


def dequantise(quantised: Quantised) -> NDArray[np.float32]:
    """The values the receiver computes with, float32 (batch, channels, h, w)."""
    low = quantised.low.astype(np.float32)[..., None, None]
    step = quantised.step.astype(np.float32)[..., None, None]
    return low + step * quantised.levels.astype(np.float32)


def check_codec(codec: str) -> None:
    """UsageError when there is no such codec."""
    if codec not in (NO_PAYLOAD, "raw", "png", *TENSOR_BITS) and not _JPEG.fullmatch(codec):
        raise UsageError(f"unknown payload codec {codec!r}; expected raw, png, jpeg1..jpeg100, u8, u4 or none")


def encode(codec: str, array: NDArray[Any]) -> bytes:
    """Payload of a u8 image (h, w) or (h, w, 3), or of a float tensor (channels, h, w), by the codec's kind."""
    if codec in TENSOR_BITS:
        return _encode_tensor(array, TENSOR_BITS[codec])
    if codec == "raw":
        return array.tobytes()
    if codec == NO_PAYLOAD:
        return b""
    return _encode_image(codec, array)


def decode(codec: str, payload: bytes | memoryview, shape: tuple[int, ...], dtype: DTypeLike) -> NDArray[Any]:
    """The array of the given shape and dtype; RemoteProtocolError when the bytes are not that."""
    data = bytes(payload) if codec in ("png",) or _JPEG.fullmatch(codec) else payload
    if codec in TENSOR_BITS:
        array: NDArray[Any] = _decode_tensor(data, shape, TENSOR_BITS[codec])
    elif codec == "raw":
        array = _decode_raw(data, shape)
    elif codec == "png" or _JPEG.fullmatch(codec):
        array = _decode_image(codec, bytes(data), shape)
    else:
        raise RemoteProtocolError(f"payload codec {codec!r} carries no data; expected an image or tensor codec")
    if array.dtype != np.dtype(dtype):
        raise RemoteProtocolError(f"payload codec {codec!r} gives {array.dtype}; expected {np.dtype(dtype)}")
    return array


def _encode_tensor(tensor: NDArray[Any], bits: int) -> bytes:
    quantised = quantise(tensor[None].astype(np.float32, copy=False), bits)
    scales = quantised.low.tobytes() + quantised.step.tobytes()
    body = scales + _pack(quantised.levels.reshape(-1), bits)
    packed = _compressor().compress(body)
    if len(packed) < len(body):
        return bytes([_ZSTD]) + packed
    return bytes([_STORED]) + body


def _pack(levels: NDArray[np.uint8], bits: int) -> bytes:
    if bits == 8:
        return levels.tobytes()
    if levels.size % 2:
        levels = np.append(levels, np.uint8(0))
    return (levels[0::2] << 4 | levels[1::2]).tobytes()


def _unpack(packed: NDArray[np.uint8], count: int, bits: int) -> NDArray[np.uint8]:
    if bits == 8:
        return packed
    return np.stack([packed >> 4, packed & 15], axis=1).reshape(-1)[:count]


def _decode_tensor(data: bytes | memoryview, shape: tuple[int, ...], bits: int) -> NDArray[np.float32]:
    if len(shape) != 3:
        raise RemoteProtocolError(f"a tensor payload of shape {shape}; expected (channels, h, w)")
    channels, count = shape[0], math.prod(shape)
    body = _body(data, 4 * channels + (count * bits + 7) // 8)
    low = np.frombuffer(body, "<f2", channels)
    step = np.frombuffer(body, "<f2", channels, 2 * channels)
    if not (np.isfinite(low).all() and np.isfinite(step).all()):
        raise RemoteProtocolError("a tensor payload whose scales are not finite; expected finite float16 scales")
    levels = _unpack(np.frombuffer(body, np.uint8, offset=4 * channels), count, bits)
    batch = dequantise(Quantised(levels.reshape(1, *shape), low[None], step[None]))
    return batch.reshape(shape)


def _body(data: bytes | memoryview, expected_bytes: int) -> bytes | memoryview:
    """What follows the flag, decompressed, of exactly the expected size."""
    if len(data) == 0 or data[0] not in (_STORED, _ZSTD):
        raise RemoteProtocolError("a tensor payload without a known leading flag; expected 0 or 1")
    body = memoryview(data)[1:]
    if data[0] == _STORED:
        _check_size("stored tensor payload", len(body), expected_bytes)
        return body
    try:
        # The frame's own claim is checked first: zstandard allocates what the header claims.
        _check_size("compressed tensor payload", zstandard.frame_content_size(body), expected_bytes)
        return _decompressor().decompress(body, max_output_size=expected_bytes, allow_extra_data=False)
    except zstandard.ZstdError as error:
        raise RemoteProtocolError(f"a tensor payload that does not decompress: {error}") from None


def _check_size(what: str, got_bytes: int, expected_bytes: int) -> None:
    if got_bytes != expected_bytes:
        raise RemoteProtocolError(f"{what} of {got_bytes} bytes; expected {expected_bytes}")


def _decode_raw(data: bytes | memoryview, shape: tuple[int, ...]) -> NDArray[np.uint8]:
    _check_size("raw image", len(data), math.prod(shape))
    return np.frombuffer(data, np.uint8).reshape(shape)


def _encode_image(codec: str, image: NDArray[Any]) -> bytes:
    import cv2

    if codec == "png":
        done, data = cv2.imencode(".png", image, [cv2.IMWRITE_PNG_COMPRESSION, 9])
    elif match := _JPEG.fullmatch(codec):
        options = [cv2.IMWRITE_JPEG_QUALITY, int(match[1]), cv2.IMWRITE_JPEG_OPTIMIZE, 1]
        done, data = cv2.imencode(".jpg", image, options)
    else:
        raise UsageError(f"unknown payload codec {codec!r}; expected raw, png, jpeg1..jpeg100, u8 or u4")
    if not done:
        raise UsageError(f"an image of shape {image.shape} cannot be encoded as {codec}")
    return data.tobytes()


def _decode_image(codec: str, data: bytes, shape: tuple[int, ...]) -> NDArray[np.uint8]:
    import cv2

    size = _png_size(data) if codec == "png" else _jpeg_size(data)
    if size != shape[:2]:  # before the decoder allocates what the header claims
        raise RemoteProtocolError(f"{codec} payload of size {size}; expected {shape[:2]}")
    flag = cv2.IMREAD_GRAYSCALE if len(shape) == 2 else cv2.IMREAD_COLOR
    try:
        image = cv2.imdecode(np.frombuffer(data, np.uint8), flag)
    except cv2.error as error:
        raise RemoteProtocolError(f"{codec} payload that does not decode: {error.err}") from None
    if image is None or image.shape != shape:
        raise RemoteProtocolError(f"{codec} payload that does not decode to an image of shape {shape}")
    return np.asarray(image, np.uint8)


def _png_size(data: bytes) -> tuple[int, int]:
    """(h, w) from the PNG's first chunk."""
    if len(data) < 33 or data[:8] != b"\x89PNG\r\n\x1a\n" or data[12:16] != b"IHDR":
        raise RemoteProtocolError("an image payload that is not a PNG; expected a PNG signature and header")
    width, height = struct.unpack_from(">II", data, 16)
    return height, width


def _jpeg_size(data: bytes) -> tuple[int, int]:
    """(h, w) from the JPEG's frame header; a second frame header is refused, for the decoder might obey it."""
    if data[:2] != b"\xff\xd8":
        raise RemoteProtocolError("an image payload that is not a JPEG; expected its signature")
    size, at = None, 2
    while at + 9 <= len(data) and data[at] == 0xFF:
        marker, length = data[at + 1], int.from_bytes(data[at + 2 : at + 4], "big")
        if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):
            if size is not None:
                raise RemoteProtocolError("a JPEG payload with two frame headers; expected one")
            height, width = struct.unpack_from(">HH", data, at + 5)
            size = (height, width)
        if marker == 0xDA:  # start of scan: pixels follow
            break
        at += 2 + length
    if size is None:
        raise RemoteProtocolError("a JPEG payload without a frame header; expected one")
    return size


def _compressor() -> zstandard.ZstdCompressor:
    if not hasattr(_contexts, "compressor"):
        _contexts.compressor = zstandard.ZstdCompressor(level=ZSTD_LEVEL)
    compressor: zstandard.ZstdCompressor = _contexts.compressor
    return compressor


def _decompressor() -> zstandard.ZstdDecompressor:
    if not hasattr(_contexts, "decompressor"):
        _contexts.decompressor = zstandard.ZstdDecompressor()
    decompressor: zstandard.ZstdDecompressor = _contexts.decompressor
    return decompressor
