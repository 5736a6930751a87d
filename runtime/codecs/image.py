"""How does an image become bytes and back? PNG, JPEG and WebP by OpenCV, grey (h, w) or colour (h, w, 3).

A decoder allocates what the header claims, so the size is read from the header first and compared with the size that
is expected; whatever a header could hide from that comparison is refused.
"""

from __future__ import annotations

import re
import struct
from typing import Any

import numpy as np
from numpy.typing import NDArray

from controller.errors import RemoteProtocolError, UsageError

IMAGE_CODEC = re.compile(r"(?P<lossless>png)|(?P<lossy>jpeg|webp)(?P<quality>[1-9]\d?|100)")
_SMALL_IMAGE_BYTES = 1 << 16
_RIFF_HEADER_BYTES, _VP8_HEADER_BYTES = 20, 10


def encode_image(codec: str, image: NDArray[Any]) -> bytes:
    """A u8 image as PNG, or as JPEG or WebP of the codec's quality."""
    import cv2

    extension, options = _options(codec, image.size)
    done, data = cv2.imencode(extension, image, options)
    if not done:
        raise UsageError(f"an image of shape {image.shape} cannot be encoded as {codec}")
    return data.tobytes()


def _options(codec: str, size_bytes: int) -> tuple[str, list[int]]:
    import cv2

    match = IMAGE_CODEC.fullmatch(codec)
    if match is None:
        raise UsageError(f"unknown image codec {codec!r}; expected png, jpeg1..jpeg100 or webp1..webp100")
    if match["lossless"]:
        # The best level is only worth its time on small images: 150 ms on a photograph.
        return ".png", [cv2.IMWRITE_PNG_COMPRESSION, 9 if size_bytes <= _SMALL_IMAGE_BYTES else 3]
    quality = int(match["quality"])
    if match["lossy"] == "webp":
        return ".webp", [cv2.IMWRITE_WEBP_QUALITY, quality]
    return ".jpg", [cv2.IMWRITE_JPEG_QUALITY, quality, cv2.IMWRITE_JPEG_OPTIMIZE, 1]


def decode_image(codec: str, data: bytes, shape: tuple[int, ...]) -> NDArray[np.uint8]:
    """The u8 image of that shape; RemoteProtocolError when the bytes are not that."""
    import cv2

    size = _size(codec, data)
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


def _size(codec: str, data: bytes) -> tuple[int, int]:
    if codec == "png":
        return _png_size(data)
    return _webp_size(data) if codec.startswith("webp") else _jpeg_size(data)


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


def _webp_size(data: bytes) -> tuple[int, int]:
    """(h, w) from the key frame of a simple lossy WebP; the extended and lossless forms are never sent, so refused."""
    at = _RIFF_HEADER_BYTES
    if len(data) < at + _VP8_HEADER_BYTES or data[:4] != b"RIFF" or data[8:12] != b"WEBP":
        raise RemoteProtocolError("an image payload that is not a WebP; expected a RIFF header")
    if data[12:16] != b"VP8 " or data[at] & 1 or data[at + 3 : at + 6] != b"\x9d\x01\x2a":
        raise RemoteProtocolError("a WebP payload without a lossy key frame in its first chunk; expected one")
    width, height = struct.unpack_from("<HH", data, at + 6)
    return height & 0x3FFF, width & 0x3FFF
