"""What can be read as a row of pictures? A video file, a folder of images, a camera, a stream; nothing of time in here.

Pictures come as OpenCV gives them, blue-green-red of any size; ``letterbox`` brings them to a workload's frame.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Protocol

import cv2
import numpy as np

from controller.errors import FailureError
from runtime.workloads.base import Image

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".webp", ".tif", ".tiff", ".ppm", ".pgm")
EXPECTED = "a video file, a folder of images, a camera index, or a URL such as rtsp://HOST/STREAM"
# What goes wrong is told by the errors raised here; the library below OpenCV can be quieted in no other way.
os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")
#: Longest that a camera may take to open, and to give its next picture.
CAMERA_WAIT_S = 5.0


class Footage(Protocol):
    """Something that gives pictures in order."""

    name: str
    live: bool  # pictures pass whether or not they are taken

    def images(self, first: int) -> Iterator[Image]:
        """Pictures from that number on; may be called again, by a live one without the pictures that have passed."""
        ...


class VideoFile:
    """Every picture of a video."""

    live = False

    def __init__(self, path: Path) -> None:
        self.name = str(path)
        self._path = path
        _opened(str(path), self.name).release()

    def images(self, first: int) -> Iterator[Image]:
        capture = _opened(str(self._path), self.name)
        try:
            for _ in range(first):
                capture.grab()
            yield from _read_all(capture)
        finally:
            capture.release()


class ImageFolder:
    """The images of a folder, in the order of their names."""

    live = False

    def __init__(self, path: Path) -> None:
        self.name = str(path)
        self._paths = sorted(p for p in path.iterdir() if p.suffix.lower() in IMAGE_SUFFIXES)
        if not self._paths:
            kinds = " ".join(IMAGE_SUFFIXES)
            raise FailureError(f"source {path} holds no images; expected a folder with some of: {kinds}")

    def images(self, first: int) -> Iterator[Image]:
        for path in self._paths[first:]:
            image = cv2.imread(str(path), cv2.IMREAD_COLOR)
            if image is None:
                raise FailureError(f"{path} cannot be read as an image")
            yield np.asarray(image, np.uint8)


class Camera:
    """A camera of this machine by its index, or a stream by its URL."""

    live = True

    def __init__(self, target: int | str) -> None:
        self.name = f"camera {target}" if isinstance(target, int) else target
        self._capture = _opened(target, self.name)

    def images(self, first: int) -> Iterator[Image]:
        try:
            yield from _read_all(self._capture)
        finally:
            self._capture.release()


def open_footage(text: str) -> Footage:
    """What the user named; FailureError in one line when there is nothing that can be read."""
    cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)
    path = Path(text)
    if path.is_dir():
        return ImageFolder(path)
    if path.is_file():
        return VideoFile(path)
    if text.isdecimal():
        return Camera(int(text))
    if "://" in text:
        return Camera(text)
    raise FailureError(f"source {text}: no such file or folder; expected {EXPECTED}")


def _opened(target: int | str, name: str) -> Any:
    if isinstance(target, int):
        capture = cv2.VideoCapture(target)
    else:
        wait_ms = int(CAMERA_WAIT_S * 1e3)
        limits = [cv2.CAP_PROP_OPEN_TIMEOUT_MSEC, wait_ms, cv2.CAP_PROP_READ_TIMEOUT_MSEC, wait_ms]
        capture = cv2.VideoCapture(target, cv2.CAP_FFMPEG, limits)
    if not capture.isOpened():
        raise FailureError(f"source {name} cannot be opened; expected {EXPECTED}")
    return capture


def _read_all(capture: Any) -> Iterator[Image]:
    while True:
        there, image = capture.read()
        if not there:
            return
        yield image


def letterbox(image: Image, shape: tuple[int, ...]) -> Image:
    """The picture scaled to fit into (h, w) grey or (h, w, 3) colour, centred on black: nothing is cut or stretched."""
    if len(shape) == 2:
        image = np.asarray(cv2.cvtColor(image, cv2.COLOR_BGR2GRAY), np.uint8)
    height, width = shape[:2]
    scale = min(height / image.shape[0], width / image.shape[1])
    inner_h, inner_w = max(round(image.shape[0] * scale), 1), max(round(image.shape[1] * scale), 1)
    if (inner_h, inner_w) != image.shape[:2]:
        how = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
        image = np.asarray(cv2.resize(image, (inner_w, inner_h), interpolation=how), np.uint8)
    if image.shape == shape:
        return image
    framed = np.zeros(shape, np.uint8)
    top, left = (height - inner_h) // 2, (width - inner_w) // 2
    framed[top : top + inner_h, left : left + inner_w] = image
    return framed
