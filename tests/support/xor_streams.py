"""Stream codecs for tests: the bytes of an array, exclusive-or those of a reference, through zstd. Lossless.

`xor` (images) and `xort` (tensors) may refer to any request that was answered; `xorchain` (images) refers to the one
sent just before.
"""

from __future__ import annotations

import math
import zlib
from typing import Any

import numpy as np
import zstandard
from numpy.typing import NDArray

from controller.errors import RemoteProtocolError, UsageError
from runtime.codecs import IMAGE, TENSOR, register_codec
from runtime.codecs.base import Kind, Payload, get_codec
from runtime.codecs.streams import KEPT_REFERENCES, Encoded, StreamCodec, Tables, UnknownReferenceError

Bytes = NDArray[np.uint8]


def as_bytes(array: NDArray[Any]) -> Bytes:
    return np.frombuffer(np.ascontiguousarray(array).tobytes(), np.uint8)


def digest_of(held: Bytes) -> int:
    return zlib.crc32(held)


class FreeSender:
    """Refers to the newest request that was answered."""

    def __init__(self) -> None:
        self._sent: dict[int, Bytes] = {}  # without an answer, oldest first
        self._held: dict[int, Bytes] = {}  # answered, oldest first
        self._pending: Bytes | None = None

    @property
    def reference_id(self) -> int:
        return next(reversed(self._held), 0)

    def encode(self, array: NDArray[Any], frame: int) -> Encoded:
        self._pending = as_bytes(array)
        if not self._held:
            return Encoded(zstandard.compress(self._pending.tobytes()))
        reference_id, held = next(reversed(self._held.items()))
        return Encoded(zstandard.compress((self._pending ^ held).tobytes()), reference_id, digest_of(held))

    def sent(self, request_id: int) -> None:
        assert self._pending is not None, "sent() without encode()"
        self._sent[request_id], self._pending = self._pending, None
        _limit(self._sent)

    def answered(self, request_id: int) -> None:
        if request_id in self._sent:
            self._held[request_id] = self._sent.pop(request_id)
            _limit(self._held)

    def unanswered(self, request_id: int) -> None:
        self._sent.pop(request_id, None)

    def forget(self) -> None:
        self._sent.clear()
        self._held.clear()
        self._pending = None


class ChainedSender:
    """Refers to the request sent just before."""

    def __init__(self) -> None:
        self._newest: tuple[int, Bytes] | None = None  # None: the next payload stands alone
        self._pending: Bytes | None = None

    @property
    def reference_id(self) -> int:
        return 0 if self._newest is None else self._newest[0]

    def encode(self, array: NDArray[Any], frame: int) -> Encoded:
        assert self._pending is None, "encode() twice without sent() or forget()"
        self._pending = as_bytes(array)
        if self._newest is None:
            return Encoded(zstandard.compress(self._pending.tobytes()))
        reference_id, held = self._newest
        return Encoded(zstandard.compress((self._pending ^ held).tobytes()), reference_id, digest_of(held))

    def sent(self, request_id: int) -> None:
        assert self._pending is not None, "sent() without encode()"
        self._newest, self._pending = (request_id, self._pending), None

    def answered(self, request_id: int) -> None:
        pass

    def unanswered(self, request_id: int) -> None:
        self._newest = None

    def forget(self) -> None:
        self._newest = self._pending = None


class XorReceiver:
    """Keeps what it decoded, up to so many."""

    def __init__(self, shape: tuple[int, ...], dtype: np.dtype[Any], most: int) -> None:
        self._shape, self._dtype, self._most = shape, dtype, most
        self.held: dict[int, Bytes] = {}

    def decode(self, payload: Payload, request_id: int, reference_id: int, digest: int) -> NDArray[Any]:
        reference = self._reference(reference_id, digest) if reference_id else None
        data = decompressed(payload, math.prod(self._shape) * self._dtype.itemsize)
        data = data if reference is None else data ^ reference
        self.held.pop(request_id, None)
        self.held[request_id] = data
        _limit(self.held, self._most)
        return np.frombuffer(data.tobytes(), self._dtype).reshape(self._shape).copy()

    def _reference(self, reference_id: int, digest: int) -> Bytes:
        held = self.held.get(reference_id)
        if held is None or digest_of(held) != digest:
            raise UnknownReferenceError(f"request {reference_id} is not held with this digest")
        return held


class Xor(StreamCodec):
    """`xor`, `xort` or `xorchain`."""

    def __init__(self, name: str, kind: Kind, chained: bool) -> None:
        self._name = name
        self.kind = kind  # type: ignore[misc] - one class for all three
        self.chained = chained  # type: ignore[misc]

    @property
    def name(self) -> str:
        return self._name

    def encode(self, array: NDArray[Any]) -> bytes:
        return zstandard.compress(array.tobytes())

    def decode(self, payload: Payload, shape: tuple[int, ...]) -> NDArray[Any]:
        return self.receiver(shape, {}).decode(payload, 1, 0, 0)

    def sender(self, shape: tuple[int, ...], tables: Tables) -> FreeSender | ChainedSender:
        return ChainedSender() if self.chained else FreeSender()

    def receiver(self, shape: tuple[int, ...], tables: Tables) -> XorReceiver:
        return XorReceiver(shape, self.dtype, 1 if self.chained else KEPT_REFERENCES)


def decompressed(payload: Payload, expected_bytes: int) -> Bytes:
    try:
        if (claimed := zstandard.frame_content_size(payload)) != expected_bytes:
            raise RemoteProtocolError(f"got {claimed} bytes; expected {expected_bytes}")
        data = zstandard.ZstdDecompressor().decompress(payload, max_output_size=expected_bytes, allow_extra_data=False)
    except zstandard.ZstdError as error:
        raise RemoteProtocolError(f"a payload that does not decompress: {error}") from None
    return np.frombuffer(data, np.uint8)


def _limit(held: dict[int, Bytes], most: int = KEPT_REFERENCES) -> None:
    while len(held) > most:
        del held[next(iter(held))]


def register() -> None:
    """Add the codecs to the table of this process; may be called twice."""
    for codec in (Xor("xor", IMAGE, False), Xor("xort", TENSOR, False), Xor("xorchain", IMAGE, True)):
        try:
            get_codec(codec.name)
        except UsageError:
            register_codec(codec)
