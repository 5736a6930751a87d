"""How is OpenCV's video reader opened, so that it is quiet and gives up in time?"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from typing import Any

import cv2

from runtime.workloads.types import Image

#: Longest that a camera may take to open, and to give its next picture.
CAMERA_WAIT_S = 5.0
#: A wait that the reader must not end by itself.
ENDLESS_S = 1e6
#: A video whose pictures are larger is refused: one of them would take 400 MB.
MAX_PIXELS = 1 << 27

# The library below OpenCV can be quieted in no other way; the errors raised here say what goes wrong.
os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")
# By default 64 packets that cannot be decoded count as the end of a file: a second of damage would hide the rest.
os.environ.setdefault("OPENCV_FFMPEG_DECODE_ATTEMPTS", "1000000")
os.environ.setdefault("OPENCV_VIDEOIO_V4L_SELECT_TIMEOUT", f"{CAMERA_WAIT_S:.0f}")
cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)


def open_capture(target: int | str, wait_s: float = CAMERA_WAIT_S, packets: bool = False) -> Any | None:
    """A reader of a camera index, a camera's device file, a video file or a URL; None when it cannot be opened.

    With ``packets`` it gives a file's encoded frames instead of pictures.
    """
    try:
        capture = _capture(target, wait_s, packets)
        pixels = capture.get(cv2.CAP_PROP_FRAME_WIDTH) * capture.get(cv2.CAP_PROP_FRAME_HEIGHT)
        return capture if capture.isOpened() and pixels <= MAX_PIXELS else None
    except (cv2.error, UnicodeError, ValueError):
        return None


def _capture(target: int | str, wait_s: float, packets: bool) -> Any:
    if isinstance(target, int):
        return cv2.VideoCapture(target)
    if is_device(target):
        return cv2.VideoCapture(target, cv2.CAP_V4L2)
    wait_ms = int(wait_s * 1e3)
    limits = [cv2.CAP_PROP_OPEN_TIMEOUT_MSEC, wait_ms, cv2.CAP_PROP_READ_TIMEOUT_MSEC, wait_ms]
    return cv2.VideoCapture(target, cv2.CAP_FFMPEG, limits + [cv2.CAP_PROP_FORMAT, -1] * packets)


def is_device(name: str) -> bool:
    """Whether a device of characters, as a camera is, has that name."""
    try:
        return stat.S_ISCHR(os.stat(name).st_mode)
    except (OSError, ValueError):
        return False


def pictures(capture: Any) -> Iterator[Image]:
    """All that a reader gives."""
    while True:
        there, image = capture.read()
        if not there:
            return
        yield image
