"""Open OpenCV's video reader with time limits and without its log output."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from typing import Any

import cv2

from runtime.workloads.types import Image

#: Longest time for a camera to open, and to give its next picture.
CAMERA_WAIT_S = 5.0
#: A time limit that never ends a wait.
ENDLESS_S = 1e6
#: A video with larger pictures is refused: one of them would take 400 MB.
MAX_PIXELS = 1 << 27

# Only an environment variable silences FFmpeg. The errors raised here describe what goes wrong.
os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")
# By default FFmpeg takes 64 undecodable packets for the end of a file, so a second of damage would hide the rest.
os.environ.setdefault("OPENCV_FFMPEG_DECODE_ATTEMPTS", "1000000")
os.environ.setdefault("OPENCV_VIDEOIO_V4L_SELECT_TIMEOUT", f"{CAMERA_WAIT_S:.0f}")
cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)


def open_capture(target: int | str, wait_s: float = CAMERA_WAIT_S, packets: bool = False) -> Any | None:
    """A ``cv2.VideoCapture`` of a camera index, a device file, a video file or a URL; None when it cannot be opened.

    ``wait_s`` limits the time to open and to read one picture. With ``packets``, it reads the encoded frames of a
    file instead of pictures.
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
    """Whether the path is a character device, which is what a camera is."""
    try:
        return stat.S_ISCHR(os.stat(name).st_mode)
    except (OSError, ValueError):
        return False


def pictures(capture: Any) -> Iterator[Image]:
    """Every picture, (h, w, 3) blue-green-red, until the reader has no more."""
    while True:
        decoded, image = capture.read()
        if not decoded:
            return
        yield image
