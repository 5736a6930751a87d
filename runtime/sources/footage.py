"""Detect the kind of a --source (video file, image folder, camera, stream or pipe), and letterbox its pictures.

Each kind has a module of its own; ``open_footage`` chooses it. Pictures are (h, w, 3) blue-green-red of any size, as
OpenCV decodes them; ``letterbox`` scales them to the frame of a workload.
"""

from __future__ import annotations

import os
import stat
from pathlib import Path
from urllib.parse import unquote

import cv2
import numpy as np

from controller.errors import FailureError, UsageError
from runtime.files.masking import shown
from runtime.sources.camera import Camera
from runtime.sources.image_folder import ImageFolder
from runtime.sources.pipe_stream import STDIN, STDIN_NAME, PipeStream
from runtime.sources.shots import Footage
from runtime.sources.video_file import VideoFile
from runtime.workloads.placement import Placement
from runtime.workloads.types import Image

EXPECTED = (
    "a video file, a folder of images, a camera index or device such as /dev/video0, a FIFO, - for standard input, "
    "or a URL such as rtsp://HOST/STREAM"
)
#: URL schemes that OpenCV's FFmpeg can receive. Any other is taken for a typing error and not retried.
SCHEMES = ("rtsp", "rtsps", "rtmp", "rtmps", "http", "https", "udp", "tcp", "tls", "rtp", "srtp", "srt", "mms", "mmsh")
VIDEO4LINUX_MAJOR = 81


def open_footage(text: str) -> Footage:
    """The footage that the user named; UsageError or FailureError when it cannot be read."""
    if not text.strip():
        raise UsageError(f"got --source {text!r}; expected {EXPECTED}")
    if text == STDIN:
        stdin_path = "/proc/self/fd/0"
        return VideoFile(Path(stdin_path), STDIN_NAME) if _kind_of(stdin_path) == "file" else PipeStream(text)
    return (
        _from_path(text)
        or _from_path(unquote(text.removeprefix("file://").removeprefix("file:")))
        or _camera_or_url(text)
    )


def _from_path(text: str) -> Footage | None:
    """The footage at a path; None when the path does not exist."""
    kind = _kind_of(text)
    if kind == "folder":
        return ImageFolder(Path(text))
    if kind == "file":
        return VideoFile(Path(text))
    if kind == "FIFO":
        return PipeStream(text)
    if kind == "camera":
        return Camera(os.path.abspath(text))
    if kind:
        raise FailureError(f"source {shown(text)} is a {kind}; expected {EXPECTED}")
    return None


def _kind_of(name: str) -> str:
    """The kind of file at a path; "" when there is none."""
    try:
        found = os.stat(name)
    except (FileNotFoundError, NotADirectoryError, ValueError):
        return ""
    except OSError as error:
        if "://" in name:
            return ""
        raise FailureError(f"source {shown(name)} cannot be read: {error.strerror or error}") from None
    if stat.S_ISCHR(found.st_mode) and os.major(found.st_rdev) == VIDEO4LINUX_MAJOR:
        return "camera"
    return next((kind for is_kind, kind in _KINDS if is_kind(found.st_mode)), "file of unknown kind")


_KINDS = (
    (stat.S_ISDIR, "folder"),
    (stat.S_ISREG, "file"),
    (stat.S_ISFIFO, "FIFO"),
    (stat.S_ISCHR, "device that is not a camera"),
    (stat.S_ISBLK, "block device"),
    (stat.S_ISSOCK, "socket"),
)


def _camera_or_url(text: str) -> Footage:
    """A camera by its index, a camera that is not connected yet, or a stream."""
    if text.isdecimal() and text.isascii() and len(text) < 6:
        return Camera(int(text))
    if text.startswith(("/dev/video", "/dev/v4l/")):
        return Camera(text)
    scheme, is_url, _ = text.partition("://")
    if is_url and scheme.lower() in SCHEMES:
        return Camera(text)
    if is_url and scheme.lower() != "file":
        raise FailureError(f"source {shown(text)}: cannot read streams of {shown(scheme)}; expected {EXPECTED}")
    raise FailureError(f"source {shown(text)}: no such file or folder; expected {EXPECTED}")


def letterbox(image: Image, shape: tuple[int, ...]) -> Image:
    """Scale a picture to fit into ``shape``, (h, w) grey or (h, w, 3) colour, and centre it on black.

    The aspect ratio is kept and nothing is cropped.
    """
    if len(shape) == 2:
        image = np.asarray(cv2.cvtColor(image, cv2.COLOR_BGR2GRAY), np.uint8)
    top, left, inner_h, inner_w = _fitted(image.shape, shape)
    if (inner_h, inner_w) != image.shape[:2]:
        how = cv2.INTER_AREA if (inner_h, inner_w) < image.shape[:2] else cv2.INTER_LINEAR
        image = np.asarray(cv2.resize(image, (inner_w, inner_h), interpolation=how), np.uint8)
    if image.shape == shape:
        return image
    framed = np.zeros(shape, np.uint8)
    framed[top : top + inner_h, left : left + inner_w] = image
    return framed


def placement_of(picture: tuple[int, ...], shape: tuple[int, ...]) -> Placement:
    """Where ``letterbox`` puts a picture of shape (h, w, ...) in a frame of shape ``shape``."""
    top, left, inner_h, inner_w = _fitted(picture, shape)
    height, width = picture[:2]
    return Placement(width, height, inner_w / width, inner_h / height, left, top)


def _fitted(picture: tuple[int, ...], shape: tuple[int, ...]) -> tuple[int, int, int, int]:
    """Top, left, height and width of the scaled picture in the frame, in pixels."""
    height, width = shape[:2]
    scale = min(height / picture[0], width / picture[1])
    inner_h, inner_w = max(round(picture[0] * scale), 1), max(round(picture[1] * scale), 1)
    return (height - inner_h) // 2, (width - inner_w) // 2, inner_h, inner_w
