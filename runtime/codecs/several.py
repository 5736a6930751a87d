"""A codec for cuts through several tensors: each is encoded by the same codec, one after the other.

    length of the payload of each tensor but the last (4 bytes, little-endian) | the payloads

Quantisation has a scale per channel, so tensors keep their own shapes: three dimensions as they are, fewer as rows of
values, more with the middle ones joined.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from controller.errors import RemoteProtocolError, UsageError
from runtime.codecs.base import TENSOR, Codec, Payload, check_size, get_codec
from runtime.codecs.streams import StreamCodec
from runtime.models.packing import Shape, Shapes, pack, unpack

_LENGTH_BYTES = 4


def codec_for(name: str, parts: Shapes) -> Codec:
    """The codec of that name, for tensors of these shapes packed into one; () for one tensor.

    UsageError when there is none, or when its payloads refer to earlier ones, which is for single tensors.
    """
    codec = get_codec(name)
    if not parts:
        return codec
    if isinstance(codec, StreamCodec):
        raise UsageError(
            f"payload codec {name!r} refers to earlier payloads and takes one tensor; got a cut through {len(parts)}"
        )
    return SeveralTensors(codec, parts)


@dataclass(frozen=True)
class SeveralTensors(Codec):
    """Encodes float32 (values,), in which tensors of the given shapes are packed."""

    codec: Codec
    parts: Shapes
    kind = TENSOR

    @property
    def name(self) -> str:
        return self.codec.name

    @property
    def missing(self) -> str:
        return self.codec.missing

    def encode(self, array: NDArray[Any]) -> bytes:
        payloads = [self.codec.encode(part[0]) for part in self._split(array[None])]
        lengths = np.array([len(payload) for payload in payloads[:-1]], "<u4")
        return b"".join((lengths.tobytes(), *payloads))

    def decode(self, payload: Payload, shape: tuple[int, ...]) -> NDArray[Any]:
        head = _LENGTH_BYTES * (len(self.parts) - 1)
        if len(payload) < head:
            raise RemoteProtocolError(f"{len(self.parts)} tensors in {len(payload)} bytes; expected at least {head}")
        if shape != (sum(map(math.prod, self.parts)),):
            raise RemoteProtocolError(f"tensors of shapes {self.parts}; expected values of shape {shape}")
        ends = head + np.cumsum(np.frombuffer(payload, "<u4", len(self.parts) - 1).astype(np.int64))
        starts = [head, *ends.tolist()]
        if starts[-1] > len(payload):
            check_size("several tensors", len(payload), starts[-1])
        view = memoryview(payload)
        pieces = [view[a:b] for a, b in zip(starts, [*starts[1:], len(payload)], strict=True)]
        decoded = [
            self.codec.decode(piece, _three(part)).reshape(1, -1)
            for piece, part in zip(pieces, self.parts, strict=True)
        ]
        joined: NDArray[np.float32] = np.concatenate(decoded, axis=1)[0]
        return joined

    def roundtrip(self, arrays: NDArray[Any]) -> NDArray[Any]:
        split = self._split(arrays)
        return pack([self.codec.roundtrip(part).reshape(len(arrays), -1) for part in split])

    def _split(self, arrays: NDArray[Any]) -> list[NDArray[Any]]:
        """The tensors (batch, channels, h, w) of packed ones (batch, values)."""
        return [part.reshape(len(part), *_three(part.shape[1:])) for part in unpack(arrays, self.parts)]


def _three(shape: Shape) -> Shape:
    """The shape as three dimensions, of which the first has scales of its own."""
    if len(shape) == 3:
        return shape
    if len(shape) > 3:
        return shape[0], math.prod(shape[1:-1]), shape[-1]
    return (shape[0], 1, shape[1]) if len(shape) == 2 else (1, 1, math.prod(shape))
