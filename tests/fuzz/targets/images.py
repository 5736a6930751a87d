"""The image codecs: a byte that chooses codec and shape, then the payload."""

from __future__ import annotations

import struct
import zlib

import numpy as np

from runtime.codecs import decode, encode

_CODECS = ("png", "jpeg75", "webp75", "raw")
_SHAPES = ((14, 14), (9, 17, 3), (28, 28))
_CHOICES = [(codec, shape) for codec in _CODECS for shape in _SHAPES]


def _pictures() -> list[bytes]:
    rng, found = np.random.default_rng(0), []
    for number, (codec, shape) in enumerate(_CHOICES):
        for image in (rng.integers(0, 256, shape, dtype=np.uint8), np.full(shape, 99, np.uint8)):
            found.append(bytes([number]) + encode(codec, image))
    return found


def _chunk(kind: bytes, body: bytes, length: int) -> bytes:
    return struct.pack(">I", length) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


#: A small file with a chunk that claims 3.5 GB, for which libpng once allocated as much.
_CHUNK_LENGTH = (
    b"\x89PNG\r\n\x1a\n"
    + _chunk(b"IHDR", struct.pack(">IIBBBBB", 28, 28, 8, 0, 0, 0, 0), 13)
    + _chunk(b"IDAT", zlib.compress(bytes(28 * 29)), 0xD0000000)[:37]
    + _chunk(b"IEND", b"", 0)
)
SEEDS = [*_pictures(), bytes([_CHOICES.index(("png", (28, 28)))]) + _CHUNK_LENGTH]


def run(data: bytes) -> None:
    codec, shape = _CHOICES[(data or b"\0")[0] % len(_CHOICES)]
    image = decode(codec, data[1:], shape)
    assert image.shape == shape
    assert image.dtype == np.uint8
