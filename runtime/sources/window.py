"""A part of the picture that counts; the rest is grey."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

from controller.errors import UsageError
from runtime.sources.frames import Feed
from runtime.sources.samples import Source
from runtime.workloads.base import Task
from runtime.workloads.placement import Placement
from runtime.workloads.types import Image


class Window(NamedTuple):
    """A rectangle in pixels of the workload's frame."""

    x: int
    y: int
    w: int
    h: int

    @property
    def place(self) -> tuple[slice, slice]:
        """Its rows and columns of a picture."""
        return slice(self.y, self.y + self.h), slice(self.x, self.x + self.w)

    @property
    def text(self) -> str:
        return ",".join(map(str, self))


def window_of(text: str, shape: Sequence[int]) -> Window:
    """The window that a user wrote as x,y,w,h; UsageError unless it lies in a frame of shape (h, w, ...)."""
    height, width = shape[:2]
    found = re.fullmatch(r"\s*(\d{1,6})\s*,\s*(\d{1,6})\s*,\s*(\d{1,6})\s*,\s*(\d{1,6})\s*", text)
    window = Window(*map(int, found.groups())) if found else Window(0, 0, 0, 0)
    if not (window.w > 0 and window.h > 0 and window.x + window.w <= width and window.y + window.h <= height):
        raise UsageError(f"--window {text}; expected x,y,w,h in pixels of the frame, which has {width} x {height}")
    return window


#: Of what does not count: the middle of the range, where detectors see nothing. With black around it, nano at 512 px
#: found 3 people in a window where it finds 14: such a picture is far from all that it was trained on.
GREY = 128


def masked(picture: Image, window: Window) -> Image:
    """The picture, grey outside the window."""
    found = np.full_like(picture, GREY)
    found[window.place] = picture[window.place]
    return found


class Windowed:
    """A source of which only a window counts. Owns the last picture that it masked."""

    def __init__(self, source: Source, window: Window, task: Task) -> None:
        self._source, self._window, self._task = source, window, task
        self._last: tuple[int, Image] | None = None

    def picture(self, index: int) -> Image:
        """The picture, grey outside the window."""
        if self._last is None or self._last[0] != index:
            self._last = index, masked(self._source.picture(index), self._window)
        return self._last[1]

    def truth(self, index: int) -> Any:
        """What of the truth lies in the window; None when it is not known."""
        truth = self._source.truth(index)
        return None if truth is None else self._task.inside(truth, self._window)

    def replay(self, source_indices: Sequence[int]) -> Iterator[Image]:
        return (masked(picture, self._window) for picture in self._source.replay(source_indices))

    # As in the source --------------------------------------------------------------------------------------------

    @property
    def name(self) -> str:
        return self._source.name

    @property
    def failure(self) -> str:
        return self._source.failure

    @property
    def cause(self) -> BaseException | None:
        return self._source.cause

    @property
    def fps(self) -> float | None:
        return self._source.fps

    @property
    def count(self) -> int:
        return self._source.count

    @property
    def feed(self) -> Feed | None:
        return self._source.feed

    def prepare(self) -> None:
        self._source.prepare()

    def source_index(self, index: int) -> int:
        return self._source.source_index(index)

    def release(self, source_index: int) -> None:
        self._source.release(source_index)

    def placement(self, source_index: int) -> Placement | None:
        return self._source.placement(source_index)

    def notes(self) -> dict[str, float]:
        return self._source.notes()

    def close(self) -> None:
        self._source.close()
