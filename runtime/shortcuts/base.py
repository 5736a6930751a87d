"""The contract of a shortcut, which may answer a frame before it is decided.

A new shortcut is a class that inherits from ``Shortcut``; docs/extending.md shows the steps.
``runtime.shortcuts.chain`` calls it, ``runtime.shortcuts.stride`` is the first one.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from controller.reuse import Answers, PastAnswer, Reuse
from runtime.sources.frames import Frame
from runtime.workloads.types import Image


@dataclass(frozen=True, slots=True)
class Context:
    """What a shortcut may look at besides the frame itself."""

    now_s: float  # on the device's clock, as are all times here
    answers: Answers  # that the device has computed
    picture: Callable[[], Image]  # the frame's picture (height, width, 3), uint8; read when it is called for


class Shortcut(Protocol):
    """One way to answer a frame without running it."""

    #: False: asked when a frame is captured, and again after each decision while the frame waits; a frame that it
    #: answers takes no place in the queue. True: asked when the frame would be decided; the time that this takes counts
    #: as device time, and an emulated slow device takes longer for it.
    needs_picture: bool = False

    def try_answer(self, frame: Frame, context: Context) -> Reuse | None:
        """The earlier answer that stands for this frame, or None where there is none."""
        ...

    def decided(self, frame: int, stride: int) -> None:
        """The answer of this frame is to stand for ``stride`` frames, itself included.

        Called before the frame is run, and again when a fallback takes so long that it covers more frames.
        """
        return

    def answered(self, answer: PastAnswer) -> None:
        """The device computed this answer, in time or late. ``Context.answers`` has it from now on."""
        return
