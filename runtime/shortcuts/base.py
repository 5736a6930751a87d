"""The contract of a shortcut, which may answer a frame with an earlier answer before it is decided.

A new shortcut is a class that inherits from ``Shortcut``; docs/extending.md shows the steps.
``runtime.shortcuts.chain`` calls all of them; ``runtime.shortcuts.stride`` is the built-in one.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass

from controller.records import Status
from controller.reuse import Answers, PastAnswer, Reuse
from runtime.sources.frames import Frame
from runtime.workloads.types import Image

#: Figures of a shortcut for the summary of a run, by name; None for one of which nothing was measured.
Notes = dict[str, float | None]


@dataclass(frozen=True, slots=True)
class Context:
    """Inputs of a shortcut besides the frame itself."""

    now_s: float  # all times are on the device's clock
    answers: Answers  # computed by the device so far
    #: Reads and returns the frame's picture: uint8, (height, width, 3) blue-green-red or (height, width) grey.
    picture: Callable[[], Image]
    #: The newest of the answers that are out, if it would be in time for the frame; only where the picture is needed.
    newest: PastAnswer | None = None
    slack_s: float = math.inf  # time to the frame's deadline
    slowdown: float = 1.0  # time on this device / time that the computation took here: above 1 on an emulated one


#: Instead of an answer: the frame shall be run, so no shortcut behind this one is asked.
RUN = Reuse(Status.OK, None)


class Shortcut(ABC):
    """One way to answer a frame without running it."""

    #: False: asked when a frame is captured, and again after each decision while the frame waits; a frame that it
    #: answers never enters the queue. True: asked just before the frame is decided; this counts as device time, and
    #: takes longer on an emulated slow device.
    needs_picture: bool = False
    #: What the summary calls it.
    name: str = ""

    @abstractmethod
    def try_answer(self, frame: Frame, context: Context) -> Reuse | None:
        """The answer that stands for this frame, or None if this shortcut has none.

        It is an earlier answer, or one of the shortcut's own: then its ``frame`` is this frame, and later frames may
        reuse it.
        """

    def decided(self, frame: int, stride: int) -> None:
        """The answer of this frame shall stand for ``stride`` frames, itself included.

        Called before the frame is run, and again when a fallback takes so long that it covers more frames.
        """
        return

    def answered(self, answer: PastAnswer) -> None:
        """The device computed this answer, in time or late. ``Context.answers`` contains it from now on."""
        return

    def motion(self, frame: int) -> float:
        """How much the picture of this frame, which was just asked about, differs from that of the newest answer, 0 to
        1; not a number where the shortcut did not look. It is an observation of the controller."""
        return math.nan

    def notes(self) -> Notes:
        """Its figures for the summary of a run; none where there is nothing to say."""
        return {}
