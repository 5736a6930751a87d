"""Images from a Python program as a source: a list, a generator, or an array of images."""

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
    """Footage over an iterable. The reading thread takes a few images ahead of the run."""

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
        for index, image in enumerate(self._checked()):
            if watch.stopped:
                return
            if index >= first:
                yield Shot(_colour(image, index), index)

    def _checked(self) -> Iterator[Any]:
        """The images; FailureError, with its cause, for any exception of the program."""
        try:
            yield from self._images
        except Exception as error:
            raise FailureError(f"source {NAME} failed: {type(error).__name__}: {error}") from error


def _colour(image: Any, index: int) -> Image:
    """A copy as (h, w, 3), because the program may reuse its array."""
    if not isinstance(image, np.ndarray) or image.dtype != np.uint8 or not _is_picture(image.shape):
        got = f"{image.dtype} {image.shape}" if isinstance(image, np.ndarray) else type(image).__name__
        raise FailureError(f"source {NAME}: image {index} is {got}; expected numpy uint8 of (h, w) or (h, w, 3)")
    return np.array(cv2.cvtColor(image, cv2.COLOR_GRAY2BGR) if image.ndim == 2 else image)


def _is_picture(shape: tuple[int, ...]) -> bool:
    return len(shape) in (2, 3) and 0 not in shape and shape[2:] in ((), (3,))
