"""Check that bytes are one whole WebP of the kind that our encoder writes: a simple lossy file with one key frame."""

from __future__ import annotations

import struct

from controller.errors import RemoteProtocolError

_RIFF_HEADER_BYTES, _VP8_HEADER_BYTES = 20, 10


def check_webp(data: bytes, shape: tuple[int, ...]) -> None:
    """RemoteProtocolError unless the bytes are a whole lossy WebP of that shape; other forms are refused."""
    at = _RIFF_HEADER_BYTES
    if len(data) < at + _VP8_HEADER_BYTES or data[:4] != b"RIFF" or data[8:12] != b"WEBP":
        raise RemoteProtocolError("an image payload that is not a WebP; expected a RIFF header")
    # Bits of the tag: inter frame 1, version 3, shown 1, size of the first partition 19.
    tag = int.from_bytes(data[at : at + 3], "little")
    key_frame = tag & 0x11 == 0x10 and tag >> 1 & 7 <= 3
    if data[12:16] != b"VP8 " or not key_frame or data[at + 3 : at + 6] != b"\x9d\x01\x2a":
        raise RemoteProtocolError("a WebP payload without a lossy key frame in its first chunk; expected one")
    riff, chunk = (int.from_bytes(data[start : start + 4], "little") for start in (4, 16))
    if riff != len(data) - 8 or chunk + chunk % 2 != len(data) - at or tag >> 5 > chunk - _VP8_HEADER_BYTES:
        raise RemoteProtocolError(
            f"a WebP payload of {len(data)} bytes whose header states other lengths; expected its own"
        )
    width, height = struct.unpack_from("<HH", data, at + 6)  # the top two bits of each are a scale, 0 in our files
    if (height, width) != shape[:2]:
        raise RemoteProtocolError(f"webp payload of size {(height, width)}; expected {shape[:2]}")
