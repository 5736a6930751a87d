"""The shortcut for frame strides: frames that an earlier decision covers are not run."""

from __future__ import annotations

from controller.records import Status
from controller.reuse import Reuse, next_run
from runtime.shortcuts.base import Context, Shortcut
from runtime.sources.frames import Frame


class Stride(Shortcut):
    """Owns the number of the next frame that must be run."""

    def __init__(self) -> None:
        self._next_run = 0

    def decided(self, frame: int, stride: int) -> None:
        self._next_run = next_run(frame, stride)

    def try_answer(self, frame: Frame, context: Context) -> Reuse | None:
        """The newest answer at the frame's capture, if an earlier decision covers the frame."""
        if frame.index >= self._next_run:
            return None
        return Reuse(Status.SKIPPED, context.answers.newest_at(frame.captured_s))
