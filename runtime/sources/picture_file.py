"""Decode an untrusted picture file: its stated size is checked before a decoder allocates memory."""

from __future__ import annotations

import os
import struct
import zlib
from pathlib import Path

import cv2
import numpy as np

from runtime.workloads.types import Image

#: Larger pictures are refused: 134 million pixels take 400 MB.
MAX_PIXELS = 1 << 27
MAX_BYTES = 512 << 20
KINDS = "PNG, JPEG, BMP, WebP, TIFF, GIF or PNM"

PNG = b"\x89PNG\r\n\x1a\n"
Size = tuple[int, int]  # width, height


class Unreadable(Exception):
    """A file that is not a readable picture. The message continues a sentence that begins with the file's name."""


def read_picture(path: Path) -> Image:
    """The picture as (h, w, 3) blue-green-red, rotated as its EXIF data states; Unreadable when it cannot be read."""
    try:
        return decode(_bytes_of(path))
    except OSError as error:
        raise Unreadable(f"cannot be read: {error.strerror or error}") from None
    except MemoryError:
        raise Unreadable("does not fit into memory") from None


def _bytes_of(path: Path) -> bytes:
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK)  # does not block if the path is a pipe by now
    with os.fdopen(descriptor, "rb") as file:
        data = file.read(MAX_BYTES + 1) if os.fstat(descriptor).st_size <= MAX_BYTES else None
    if data is None or len(data) > MAX_BYTES:
        raise Unreadable(f"is larger than {MAX_BYTES >> 20} MiB")
    return data


def decode(data: bytes) -> Image:
    """The picture (h, w, 3) of an encoded file; Unreadable when it is not a whole picture of a known format."""
    try:
        size = picture_size(data)
    except (struct.error, IndexError, ValueError):
        size = None
    if size is None or min(size) < 1:
        raise Unreadable(f"is not an image; expected {KINDS}")
    if size[0] * size[1] > MAX_PIXELS:
        raise Unreadable(f"has {size[0]} x {size[1]} pixels; expected at most {MAX_PIXELS >> 20} million")
    if data.startswith(PNG) and not _whole_png(data):
        raise Unreadable("is damaged or cut off")
    try:
        image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
    except cv2.error:
        image = None
    if image is None:
        raise Unreadable("is damaged or cut off")
    return np.asarray(image, np.uint8)


# Sizes, from the first bytes ---------------------------------------------------------------------------------


def picture_size(data: bytes) -> Size | None:
    """(width, height) that the file states; None when its format is unknown."""
    for magic, size_of in _SIZES.items():
        if data.startswith(magic):
            return size_of(data)
    return None


def _png_size(data: bytes) -> Size:
    width, height = struct.unpack_from(">II", data, 16)
    return width, height


def _jpeg_size(data: bytes) -> Size | None:
    """Read the frame header, which follows any number of other segments."""
    at = 2
    while data[at] == 0xFF:
        marker = data[at + 1]
        if marker == 0xFF or 0xD0 <= marker <= 0xD8 or marker == 0x01:  # padding, or a marker without a length
            at += 1 if marker == 0xFF else 2
            continue
        if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):
            height, width = struct.unpack_from(">HH", data, at + 5)
            return width, height
        at += 2 + max(struct.unpack_from(">H", data, at + 2)[0], 2)
    return None


def _bmp_size(data: bytes) -> Size:
    if struct.unpack_from("<I", data, 14)[0] == 12:  # the header of OS/2
        width, height = struct.unpack_from("<HH", data, 18)
    else:
        width, height = struct.unpack_from("<ii", data, 18)
    return abs(width), abs(height)


def _webp_size(data: bytes) -> Size | None:
    kind = data[8:16]
    if kind == b"WEBPVP8 ":
        width, height = struct.unpack_from("<HH", data, 26)
        return width & 0x3FFF, height & 0x3FFF
    if kind == b"WEBPVP8L":
        bits = struct.unpack_from("<I", data, 21)[0]
        return (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
    if kind == b"WEBPVP8X":
        return int.from_bytes(data[24:27], "little") + 1, int.from_bytes(data[27:30], "little") + 1
    return None


def _tiff_size(data: bytes) -> Size | None:
    """Read the first directory: OpenCV decodes that one."""
    order = "<" if data[:2] == b"II" else ">"
    at = struct.unpack_from(f"{order}I", data, 4)[0]
    found = {}
    for entry in range(struct.unpack_from(f"{order}H", data, at)[0]):
        tag, kind = struct.unpack_from(f"{order}HH", data, at + 2 + 12 * entry)
        if tag in (256, 257):
            found[tag] = struct.unpack_from(f"{order}{'H' if kind == 3 else 'I'}", data, at + 10 + 12 * entry)[0]
    return (found[256], found[257]) if len(found) == 2 else None


def _gif_size(data: bytes) -> Size:
    width, height = struct.unpack_from("<HH", data, 6)
    return width, height


def _pnm_size(data: bytes) -> Size:
    """The first two numbers after the magic number; # begins a comment."""
    lines = (line.split(b"#")[0] for line in data[2:4096].split(b"\n"))
    words = b" ".join(lines).split()
    return int(words[0]), int(words[1])


_SIZES = {
    PNG: _png_size,
    b"\xff\xd8\xff": _jpeg_size,
    b"BM": _bmp_size,
    b"RIFF": _webp_size,
    b"II*\0": _tiff_size,
    b"MM\0*": _tiff_size,
    b"GIF8": _gif_size,
    **{b"P%d" % kind: _pnm_size for kind in range(1, 7)},
}


def _whole_png(data: bytes) -> bool:
    """Whether every chunk is present with a valid checksum. libpng would print a warning on stderr otherwise."""
    at = len(PNG)
    while at + 12 <= len(data):
        length, kind = struct.unpack_from(">I4s", data, at)
        end = at + 12 + length
        if end > len(data) or zlib.crc32(data[at + 4 : end - 4]) != struct.unpack_from(">I", data, end - 4)[0]:
            return False
        if kind == b"IEND":
            return True
        at = end
    return False
