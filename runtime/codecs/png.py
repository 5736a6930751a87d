"""Check that bytes are one whole PNG of the kind that our encoder writes, and rewrite it for the decoder.

A decoder trusts the lengths in a file: 82 bytes with one wrong chunk length make libpng allocate gigabytes. Only what
`runtime.codecs.image.Png` writes is legal: 8 bits, grey or colour, not interlaced, with a header, data chunks and an
end. The data is decompressed here, limited to the size of the picture; the decoder gets the scanlines in a new file.
"""

from __future__ import annotations

import struct
import zlib

from controller.errors import RemoteProtocolError

_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_FRAME_BYTES = 12  # of a chunk around its data: length, type, checksum
#: Our encoder writes data chunks of 8 kB. Each chunk costs time, so their number is limited by the size of the file.
_FEWEST_BYTES_PER_CHUNK, _SPARE_CHUNKS = 512, 16
_GREY, _COLOUR = 0, 2
_FILTERS = bytes(range(5))


def checked_png(data: bytes, shape: tuple[int, ...]) -> bytes:
    """Rewrite the picture as an uncompressed PNG; RemoteProtocolError unless it is a whole PNG of that shape."""
    chunks = _chunks(data)
    (first, header), *middle, (last, end) = chunks if len(chunks) > 1 else [*chunks, (b"", b""), (b"", b"")]
    if first != b"IHDR" or len(header) != 13:
        raise RemoteProtocolError("a PNG payload without a header chunk; expected IHDR first")
    _check_header(header, shape)
    if not middle or {kind for kind, _ in middle} != {b"IDAT"} or last != b"IEND" or end:
        raise RemoteProtocolError("a PNG payload with other chunks; expected IHDR, IDAT and IEND")
    lines = _inflated(b"".join(body for _, body in middle), shape)
    stored = _chunk(b"IDAT", zlib.compress(lines, level=0))
    return _SIGNATURE + _chunk(b"IHDR", header) + stored + _chunk(b"IEND", b"")


def _chunks(data: bytes) -> list[tuple[bytes, bytes]]:
    """Type and content of every chunk; RemoteProtocolError when a length or a checksum is wrong."""
    if not data.startswith(_SIGNATURE):
        raise RemoteProtocolError("an image payload that is not a PNG; expected a PNG signature and header")
    chunks: list[tuple[bytes, bytes]] = []
    at, most = len(_SIGNATURE), _SPARE_CHUNKS + len(data) // _FEWEST_BYTES_PER_CHUNK
    while at < len(data):
        left = len(data) - at - _FRAME_BYTES
        length = int.from_bytes(data[at : at + 4], "big")
        if length > left or len(chunks) == most:
            raise RemoteProtocolError(f"a PNG chunk of {length} bytes; expected at most {left}, in {most} chunks")
        end = at + 8 + length
        if zlib.crc32(data[at + 4 : end]) != int.from_bytes(data[end : end + 4], "big"):
            raise RemoteProtocolError("a PNG chunk with a wrong checksum; expected its CRC-32")
        chunks.append((data[at + 4 : at + 8], data[at + 8 : end]))
        at = end + 4
    return chunks


def _check_header(header: bytes, shape: tuple[int, ...]) -> None:
    width, height, *kind = struct.unpack(">IIBBBBB", header)
    if (height, width) != shape[:2]:
        raise RemoteProtocolError(f"png payload of size {(height, width)}; expected {shape[:2]}")
    expected = [8, _GREY if len(shape) == 2 else _COLOUR, 0, 0, 0]
    if kind != expected:
        raise RemoteProtocolError(f"a PNG of kind {kind}; expected {expected}: depth, colour, no interlacing")


def _inflated(compressed: bytes, shape: tuple[int, ...]) -> bytes:
    """The decompressed scanlines: for each row a filter byte, then its samples."""
    row_bytes = 1 + shape[1] * (shape[2] if len(shape) == 3 else 1)
    expected = shape[0] * row_bytes
    inflater = zlib.decompressobj()
    try:
        lines = inflater.decompress(compressed, expected + 1)
    except zlib.error as error:
        raise RemoteProtocolError(f"a PNG payload that does not inflate: {error}") from None
    if len(lines) != expected or not inflater.eof or inflater.unused_data:
        raise RemoteProtocolError(f"a PNG payload with scanlines of another size; expected {expected} bytes")
    if lines[::row_bytes].strip(_FILTERS):
        raise RemoteProtocolError("a PNG row with an unknown filter; expected 0 to 4")
    return lines


def _chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
