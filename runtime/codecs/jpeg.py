"""Check that bytes are one whole JPEG of the kind that our encoder writes, before they are decoded.

Only what `runtime.codecs.image.Jpeg` writes is legal: one baseline frame of 8 bits with one or three components, one
scan of all of them, no restart intervals, thumbnails or comments, and nothing after the end. Progressive and
arithmetic-coded files are refused: a small file with many scans keeps a decoder busy for long.
"""

from __future__ import annotations

import re
import struct

from controller.errors import RemoteProtocolError

_START, _END = b"\xff\xd8", b"\xff\xd9"
_APP0, _TABLES, _FRAME, _HUFFMAN, _SCAN = 0xE0, 0xDB, 0xC0, 0xC4, 0xDA
_FRAMES = frozenset(range(0xC0, 0xD0)) - {_HUFFMAN, 0xC8, 0xCC}
#: Our encoder writes at most 9. The limit bounds the work of a decoder.
_MOST_SEGMENTS = 16
_JFIF = re.compile(rb"JFIF\0.{7}\0\0", re.DOTALL)  # no thumbnail
#: 0xFF begins a marker, unless 0x00 follows (an escaped 0xFF in the coded pixels).
_MARKER = re.compile(rb"\xff[^\0]|\xff\Z", re.DOTALL)
_SAMPLINGS = (0x11, 0x12, 0x21, 0x22)  # of the luma component; chroma is always 1 x 1


def check_jpeg(data: bytes, shape: tuple[int, ...]) -> None:
    """RemoteProtocolError unless the bytes are a whole JPEG of that shape, (h, w) or (h, w, 3)."""
    if not data.startswith(_START):
        raise RemoteProtocolError("an image payload that is not a JPEG; expected its signature")
    at, frames = len(_START), 0
    for _ in range(_MOST_SEGMENTS):
        marker, body = _segment(data, at)
        at += 4 + len(body)
        frames += marker in _FRAMES
        if frames > 1:
            raise RemoteProtocolError("a JPEG payload with two frame headers; expected one")
        if marker == _SCAN:
            return _check_scan(data, at, body, frames, shape)
        _check_segment(marker, body, shape)
    raise RemoteProtocolError(
        f"a JPEG payload of more than {_MOST_SEGMENTS} segments; expected at most {_MOST_SEGMENTS}"
    )


def _segment(data: bytes, at: int) -> tuple[int, bytes]:
    """Marker and content of the segment that starts at a position."""
    length = int.from_bytes(data[at + 2 : at + 4], "big")
    if at + 4 > len(data) or data[at] != 0xFF or not 2 <= length <= len(data) - at - 2:
        raise RemoteProtocolError(
            f"a JPEG segment of {length} bytes at {at} of {len(data)}; expected one that ends within the payload"
        )
    return data[at + 1], data[at + 4 : at + 2 + length]


def _check_segment(marker: int, body: bytes, shape: tuple[int, ...]) -> None:
    if marker == _FRAME:
        return _check_frame(body, shape)
    legal = {_APP0: _JFIF.fullmatch(body), _TABLES: _are_tables(body), _HUFFMAN: _are_huffman(body)}
    if not legal.get(marker):
        raise RemoteProtocolError(f"a JPEG segment of kind {marker:#x}; expected a well-formed one of a baseline JPEG")
    return None


def _check_frame(body: bytes, shape: tuple[int, ...]) -> None:
    components = 1 if len(shape) == 2 else shape[2]
    if len(body) != 6 + 3 * components or body[0] != 8 or body[5] != components:
        raise RemoteProtocolError(
            f"a JPEG frame header of {len(body)} bytes; expected {components} components of 8 bits"
        )
    size = struct.unpack_from(">HH", body, 1)
    if size != shape[:2]:  # checked before the decoder allocates what the header states
        raise RemoteProtocolError(f"jpeg payload of size {size}; expected {shape[:2]}")
    sampling, tables = body[7::3], body[8::3]
    if sampling[0] not in _SAMPLINGS or sampling[1:].strip(b"\x11") or max(tables) > 3:
        raise RemoteProtocolError(
            f"a JPEG with sampling {sampling.hex()}; expected at most 2 x 2 of the first component"
        )


def _are_tables(body: bytes) -> bool:
    """Whether a segment holds whole quantisation tables of 8 bits."""
    return len(body) > 0 and len(body) % 65 == 0 and max(body[::65]) <= 3


def _are_huffman(body: bytes) -> bool:
    """Whether a segment holds whole baseline Huffman tables: class and number, codes per length, values."""
    at = 0
    while at < len(body):
        if body[at] & ~0x11 or at + 17 > len(body):
            return False
        at += 17 + sum(body[at + 1 : at + 17])
    return at == len(body) and at > 0


def _check_scan(data: bytes, at: int, body: bytes, frames: int, shape: tuple[int, ...]) -> None:
    """Check that the scan covers all components and that its coded pixels reach to the end marker."""
    components = 1 if len(shape) == 2 else shape[2]
    if frames != 1:
        raise RemoteProtocolError("a JPEG payload without a frame header; expected one")
    if len(body) != 4 + 2 * components or body[0] != components or body[-3:] != b"\0\x3f\0":
        raise RemoteProtocolError("a JPEG scan of some components; expected one scan of all of them")
    marker = _MARKER.search(data, at)
    if marker is None or marker.start() != len(data) - 2 or not data.endswith(_END):
        raise RemoteProtocolError("a JPEG payload that is too long or cut off; expected one scan and the end marker")
