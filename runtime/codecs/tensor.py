"""Tensor codecs for later partition points: affine quantisation per channel, then packing and entropy coding.

    flag (1 byte) | low (float16 x channels) | step (float16 x channels) | levels
    value = low + step * level

The flag states the coding of the rest. 0: scales and packed levels, uncompressed. 1: scales and packed levels,
compressed with zstd. 2: uncompressed scales, and levels coded as planes (`runtime.codecs.planes`), the smallest coding
of most sparse levels of one or two bits.

With 8, 4 and 2 bits, low is the minimum of the channel, and step is its range divided by the number of intervals. With
one bit, a level states whether a value is above a threshold: low is the mean of the values below it, low + step the
mean of those above.
"""

from __future__ import annotations

import math
import threading
from dataclasses import dataclass
from typing import Any

import numpy as np
import zstandard
from numpy.typing import NDArray

from controller.errors import RemoteProtocolError
from runtime.codecs.base import TENSOR, Codec, Payload, check_size
from runtime.codecs.planes import decode_planes, encode_planes

BITS = (8, 4, 2, 1)
THRESHOLD_FRAC = 0.35  # threshold between the two levels of one bit, as a share of the channel's range
ZSTD_LEVEL = 1
PLANE_BITS = (1, 2)  # payloads of 4 and 8 bits keep the coding with which the shipped bundles were measured
_STORED, _ZSTD, _PLANES = 0, 1, 2
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
    """Affine quantisation of (batch, channels, h, w), with a scale for each sample and channel."""
    flat = tensors.reshape(*tensors.shape[:2], -1)
    levels, low, step = _binary(flat) if bits == 1 else _uniform(flat, bits)
    return Quantised(levels.reshape(tensors.shape), low, step)


def _uniform(
    flat: NDArray[np.float32], bits: int
) -> tuple[NDArray[np.uint8], NDArray[np.float16], NDArray[np.float16]]:
    top_level = (1 << bits) - 1
    low = _to_float16(flat.min(axis=2))
    step = _to_float16((flat.max(axis=2) - low.astype(np.float32)) / top_level)
    divisor = np.where(step > 0, step, np.float16(1)).astype(np.float32)
    levels = (flat - low.astype(np.float32)[..., None]) / divisor[..., None]
    return np.clip(np.rint(levels), 0, top_level).astype(np.uint8), low, step


def _binary(flat: NDArray[np.float32]) -> tuple[NDArray[np.uint8], NDArray[np.float16], NDArray[np.float16]]:
    least, most = flat.min(axis=2), flat.max(axis=2)
    above = flat > (least + np.float32(THRESHOLD_FRAC) * (most - least))[..., None]
    count = np.count_nonzero(above, axis=2)
    total, total_above = flat.sum(axis=2), (flat * above).sum(axis=2)
    # At least the minimum is below the threshold; in a constant channel nothing is above it.
    mean_below = (total - total_above) / np.maximum(flat.shape[2] - count, 1)
    mean_above = np.where(count > 0, total_above / np.maximum(count, 1), mean_below)
    low = _to_float16(mean_below)
    return above.view(np.uint8), low, _to_float16(mean_above - low.astype(np.float32))


def _to_float16(values: NDArray[np.floating[Any]]) -> NDArray[np.float16]:
    limited: NDArray[np.floating[Any]] = np.clip(values, -_FLOAT16_MAX, _FLOAT16_MAX)
    return limited.astype(np.float16)


def dequantise(quantised: Quantised) -> NDArray[np.float32]:
    """The values that the receiver computes with, float32 (batch, channels, h, w)."""
    low = quantised.low.astype(np.float32)[..., None, None]
    step = quantised.step.astype(np.float32)[..., None, None]
    return low + step * quantised.levels.astype(np.float32)


@dataclass(frozen=True)
class QuantisedTensor(Codec):
    """A tensor codec of 8, 4, 2 or 1 bits per value: `u8` ... `u1`."""

    bits: int
    kind = TENSOR

    @property
    def name(self) -> str:
        return f"u{self.bits}"

    @property
    def top_level(self) -> int:
        """The largest level; the smallest is 0."""
        return (1 << self.bits) - 1

    def encode(self, array: NDArray[Any]) -> bytes:
        quantised = quantise(array[None].astype(np.float32, copy=False), self.bits)
        scales = quantised.low.tobytes() + quantised.step.tobytes()
        levels = quantised.levels[0]
        coders = {_STORED: scales + pack(levels.reshape(-1), self.bits)}
        if self.bits not in PLANE_BITS:
            coders[_ZSTD] = _compressor().compress(coders[_STORED])
        else:
            coders[_PLANES] = scales + encode_planes(levels, self.bits)
        flag = min(coders, key=lambda coder: len(coders[coder]))
        return bytes([flag]) + coders[flag]

    def decode(self, payload: Payload, shape: tuple[int, ...]) -> NDArray[np.float32]:
        if len(shape) != 3:
            raise RemoteProtocolError(f"a tensor payload of shape {shape}; expected (channels, h, w)")
        channels, count = shape[0], math.prod(shape)
        if len(payload) and payload[0] == _PLANES and self.bits in PLANE_BITS:
            body: Payload = memoryview(payload)[1:]
            scales = _scales(body, channels)
            levels = decode_planes(body[4 * channels :], shape, self.bits)
        else:
            body = _body(payload, 4 * channels + (count * self.bits + 7) // 8)
            scales = _scales(body, channels)
            levels = unpack(np.frombuffer(body, np.uint8, offset=4 * channels), count, self.bits)
        return dequantise(Quantised(levels.reshape(1, *shape), *scales)).reshape(shape)

    def roundtrip(self, arrays: NDArray[Any]) -> NDArray[np.float32]:
        """The same values as `encode` and `decode`, for a whole batch at once and without the entropy coder."""
        return dequantise(quantise(arrays, self.bits))


def _scales(body: Payload, channels: int) -> tuple[NDArray[np.float16], NDArray[np.float16]]:
    """Low and step, (1, channels) each, from the start of a body."""
    if len(body) < 4 * channels:
        raise RemoteProtocolError(f"a tensor payload of {len(body)} bytes; expected {4 * channels} of scales and more")
    scales = np.frombuffer(body, "<f2", 2 * channels).reshape(2, 1, channels)
    if not np.isfinite(scales).all():
        raise RemoteProtocolError("a tensor payload whose scales are not finite; expected finite float16 scales")
    return scales[0], scales[1]


def pack(levels: NDArray[np.uint8], bits: int) -> bytes:
    """Pack levels of 1, 2, 4 or 8 bits, the first in the highest bits of a byte; the last byte is filled with 0."""
    if bits == 8:
        return levels.tobytes()
    if bits == 1:
        return np.packbits(levels).tobytes()
    per_byte = 8 // bits
    rows = np.pad(levels, (0, -levels.size % per_byte)).reshape(-1, per_byte)
    packed = np.zeros(len(rows), np.uint8)
    for column in range(per_byte):
        packed |= rows[:, column] << np.uint8(8 - bits * (column + 1))
    return packed.tobytes()


def unpack(packed: NDArray[np.uint8], count: int, bits: int) -> NDArray[np.uint8]:
    """The first `count` levels of what `pack` returned."""
    if bits == 8:
        return packed[:count]
    if bits == 1:
        return np.unpackbits(packed, count=count)
    shifts = np.arange(8 - bits, -1, -bits, dtype=np.uint8)
    return (packed[:, None] >> shifts & np.uint8((1 << bits) - 1)).reshape(-1)[:count]


def _body(data: Payload, expected_bytes: int) -> Payload:
    """The decompressed content after the flag; RemoteProtocolError unless it has the expected size."""
    if len(data) == 0 or data[0] not in (_STORED, _ZSTD):
        raise RemoteProtocolError("a tensor payload without a known leading flag; expected 0 to 2")
    body = memoryview(data)[1:]
    if data[0] == _STORED:
        check_size("stored tensor payload", len(body), expected_bytes)
        return body
    try:
        # The stated size is checked first, because zstandard allocates what the header states.
        check_size("compressed tensor payload", zstandard.frame_content_size(body), expected_bytes)
        return _decompressor().decompress(body, max_output_size=expected_bytes, allow_extra_data=False)
    except zstandard.ZstdError as error:
        raise RemoteProtocolError(f"a tensor payload that does not decompress: {error}") from None


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
