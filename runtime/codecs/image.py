"""How does an image become bytes and back? PNG, JPEG and WebP by OpenCV, grey (h, w) or colour (h, w, 3).

A decoder allocates what a header claims and believes every length, so a payload is checked to its last byte before a
decoder sees it (`runtime.codecs.png`, `jpeg`, `webp`), and the decoder gets the bytes that were checked.
"""

from __future__ import annotations

import os
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
from numpy.typing import NDArray

from controller.errors import RemoteProtocolError, UsageError
from runtime.codecs.jpeg import check_jpeg
from runtime.codecs.png import checked_png
from runtime.codecs.webp import check_webp

IMAGE_CODEC = re.compile(r"(?P<lossless>png)|(?P<lossy>jpeg|webp)(?P<quality>[1-9]\d?|100)")
_SMALL_IMAGE_BYTES = 1 << 16
_STDERR = 2
_silencing = threading.Lock()


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

    checked = _checked(codec, data, shape)
    flag = cv2.IMREAD_GRAYSCALE if len(shape) == 2 else cv2.IMREAD_COLOR
    try:
        with _silence():
            image = cv2.imdecode(np.frombuffer(checked, np.uint8), flag)
    except cv2.error as error:
        raise RemoteProtocolError(f"{codec} payload that does not decode: {error.err}") from None
    if image is None or image.shape != shape:
        raise RemoteProtocolError(f"{codec} payload that does not decode to an image of shape {shape}")
    return np.asarray(image, np.uint8)


def _checked(codec: str, data: bytes, shape: tuple[int, ...]) -> bytes:
    """The bytes for the decoder, once they are known to be whole and of that shape."""
    if codec == "png":
        return checked_png(data, shape)
    check = check_webp if codec.startswith("webp") else check_jpeg
    check(data, shape)
    return data


@contextmanager
def _silence() -> Iterator[None]:
    """Nothing that the block writes to standard error is shown.

    The C libraries report damaged pixels there and go on, so a peer could fill the log with a line for each of its
    messages. The descriptor belongs to the whole process, hence the lock.
    """
    with _silencing, open(os.devnull, "wb") as nowhere:
        try:
            shown = os.dup(_STDERR)
        except OSError:  # it is closed, so nothing is shown anyway
            yield
            return
        os.dup2(nowhere.fileno(), _STDERR)
        try:
            yield
        finally:
            os.dup2(shown, _STDERR)
            os.close(shown)
