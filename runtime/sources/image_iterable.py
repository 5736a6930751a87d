"""Images that a Python program makes: a list, a generator, an array of images."""

from __future__ import annotations

from collections.abc import Generator, Iterable, Iterator
from typing import Any

import cv2
import numpy as np

from controller.errors import FailureError, UsageError
from runtime.sources.shots import Shot, Watch
from runtime.workloads.types import Image

NAME = "iterable of images"


class ImageIterable:
    """Read a few images ahead, by the thread that reads sources. An image's place is its number, from 0."""

    name = NAME
    live = False
    fps: float | None = None
    open_wait_s = 0.0

    def __init__(self, images: Iterable[Image]) -> None:
        if not isinstance(images, Iterable):
            raise UsageError(f"got a {type(images).__name__} as the source; expected a name or an iterable of images")
        if isinstance(images, np.ndarray) and images.ndim == 3 and images.shape[2] == 3:
            raise UsageError(f"got one image {images.shape} as the source; expected an iterable of images: [image]")
        self._images = images
        self.once = isinstance(images, Iterator)

    def shots(self, first: int, watch: Watch) -> Generator[Shot, None, None]:
        for place, image in enumerate(self._given(watch)):
            if watch.stopped:
                return
            if place >= first:
                yield Shot(_colour(image, place), place)

    def _given(self, watch: Watch) -> Iterator[Any]:
        """FailureError, with the cause, for whatever the program raises."""
        try:
            yield from self._images
        except Exception as error:
            raise FailureError(f"source {NAME} failed: {type(error).__name__}: {error}") from error


def _colour(image: Any, place: int) -> Image:
    """A copy as (h, w, 3), for the program may use its array again."""
    if not isinstance(image, np.ndarray) or image.dtype != np.uint8 or not _is_picture(image.shape):
        got = f"{image.dtype} {image.shape}" if isinstance(image, np.ndarray) else type(image).__name__
        raise FailureError(f"source {NAME}: image {place} is {got}; expected numpy uint8 of (h, w) or (h, w, 3)")
    return np.array(cv2.cvtColor(image, cv2.COLOR_GRAY2BGR) if image.ndim == 2 else image)


def _is_picture(shape: tuple[int, ...]) -> bool:
    return len(shape) in (2, 3) and 0 not in shape and shape[2:] in ((), (3,))
