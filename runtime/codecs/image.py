"""Image codecs for partition point 0: raw pixels, and OpenCV's PNG, JPEG and WebP, grey (h, w) or colour (h, w, 3).

Decoders allocate what a header states and trust every length. So a payload is checked completely before it is decoded
(`runtime.codecs.png`, `jpeg`, `webp`), and the decoder gets only checked bytes.
"""

from __future__ import annotations

import math
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from controller.errors import RemoteProtocolError, UsageError
from runtime.codecs.base import IMAGE, Codec, Payload, check_size
from runtime.codecs.jpeg import check_jpeg
from runtime.codecs.png import checked_png
from runtime.codecs.webp import check_webp

QUALITIES = range(1, 101)  # of JPEG and lossy WebP
_SMALL_IMAGE_BYTES = 1 << 16
_STDERR = 2
_silencing = threading.Lock()


class Raw(Codec):
    """The pixels, uncompressed."""

    name = "raw"
    kind = IMAGE
    lossless = True

    def encode(self, array: NDArray[Any]) -> bytes:
        return array.tobytes()

    def decode(self, payload: Payload, shape: tuple[int, ...]) -> NDArray[Any]:
        check_size("raw image", len(payload), math.prod(shape))
        return np.frombuffer(payload, np.uint8).reshape(shape)


class Png(Codec):
    """PNG."""

    name = "png"
    kind = IMAGE
    lossless = True

    def encode(self, array: NDArray[Any]) -> bytes:
        import cv2

        # The best level takes 150 ms on a photograph, so it is used for small images only.
        level = 9 if array.size <= _SMALL_IMAGE_BYTES else 3
        return _encode(".png", array, [cv2.IMWRITE_PNG_COMPRESSION, level])

    def decode(self, payload: Payload, shape: tuple[int, ...]) -> NDArray[Any]:
        return _decode("png", checked_png(bytes(payload), shape), shape)


@dataclass(frozen=True)
class Jpeg(Codec):
    """Baseline JPEG with a fixed quality."""

    quality: int  # 1 to 100
    kind = IMAGE

    @property
    def name(self) -> str:
        return f"jpeg{self.quality}"

    def encode(self, array: NDArray[Any]) -> bytes:
        import cv2

        return _encode(".jpg", array, [cv2.IMWRITE_JPEG_QUALITY, self.quality, cv2.IMWRITE_JPEG_OPTIMIZE, 1])

    def decode(self, payload: Payload, shape: tuple[int, ...]) -> NDArray[Any]:
        data = bytes(payload)
        check_jpeg(data, shape)
        return _decode("jpeg", data, shape)


@dataclass(frozen=True)
class WebP(Codec):
    """Lossy WebP with a fixed quality."""

    quality: int  # 1 to 100
    kind = IMAGE

    @property
    def name(self) -> str:
        return f"webp{self.quality}"

    def encode(self, array: NDArray[Any]) -> bytes:
        import cv2

        return _encode(".webp", array, [cv2.IMWRITE_WEBP_QUALITY, self.quality])

    def decode(self, payload: Payload, shape: tuple[int, ...]) -> NDArray[Any]:
        data = bytes(payload)
        check_webp(data, shape)
        return _decode("webp", data, shape)


def _encode(extension: str, image: NDArray[Any], options: list[int]) -> bytes:
    """Encode a u8 image as a file with that extension."""
    import cv2

    encoded, data = cv2.imencode(extension, image, options)
    if not encoded:
        raise UsageError(f"OpenCV cannot write an image of shape {image.shape} as {extension}; expected (h, w[, 3])")
    return data.tobytes()


def _decode(kind: str, checked: bytes, shape: tuple[int, ...]) -> NDArray[np.uint8]:
    """Decode a u8 image of that shape from checked bytes; RemoteProtocolError when its pixels are damaged."""
    import cv2

    flag = cv2.IMREAD_GRAYSCALE if len(shape) == 2 else cv2.IMREAD_COLOR
    try:
        with _silence():
            image = cv2.imdecode(np.frombuffer(checked, np.uint8), flag)
    except cv2.error as error:
        raise RemoteProtocolError(f"a {kind} payload that does not decode: {error.err}") from None
    if image is None or image.shape != shape:
        raise RemoteProtocolError(f"a {kind} payload that does not decode to an image of shape {shape}")
    return np.asarray(image, np.uint8)


@contextmanager
def _silence() -> Iterator[None]:
    """Discard what the block writes to standard error.

    The C libraries report damaged pixels there, so a peer could fill the log with one line per message. The descriptor
    belongs to the whole process, hence the lock.
    """
    with _silencing, open(os.devnull, "wb") as nowhere:
        try:
            shown = os.dup(_STDERR)
        except OSError:  # standard error is closed, so there is nothing to silence
            yield
            return
        os.dup2(nowhere.fileno(), _STDERR)
        try:
            yield
        finally:
            os.dup2(shown, _STDERR)
            os.close(shown)
