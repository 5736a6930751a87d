"""Finds the window of a cropped frame on the device, and the answer to a whole picture that it refers to.

The rule is that of ``controller.regions``. A small copy is taken of every picture that is run, because its answer may
be what later frames refer to: a fallback answers a cropped frame with the whole picture.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

from controller.regions import MOST_AGE, Aim, window_of
from controller.reuse import PastAnswer
from runtime.shortcuts.base import Notes
from runtime.shortcuts.filtering.features import Small, small_copy
from runtime.sources.frames import Frame
from runtime.workloads.types import Image

#: More frames than are run within ``MOST_AGE``.
_KEPT = 2 * MOST_AGE

#: Profiled device time of one look for a window, in seconds: two small copies, their changes, the fullest window.
#: Measured by `python -m benchmarks.bench_roi --look` and rounded up.
LOOK_S = 4e-4


class RegionFinder:
    """Owns small copies of the last pictures that were run, and the last answers to whole pictures."""

    def __init__(self, picture: Callable[[int], Image]) -> None:
        """``picture`` returns the picture of a sample, given ``Frame.source_index``."""
        self._picture = picture
        self._copies: dict[int, Small] = {}  # by frame, the oldest first
        self._answers: deque[PastAnswer] = deque(maxlen=_KEPT)
        self._cropped = self._refused = 0

    def aim(self, frame: Frame, crop: float, now_s: float) -> Aim | None:
        """Where to run a frame with this crop; None if the whole picture must be run, as always with a crop of 0.

        Called once for each frame that is run, in order.
        """
        picture = self._picture(frame.source_index)
        self._remember(frame.index, small_copy(picture))
        if crop == 0:
            return None
        found = self._found(frame, crop, now_s, (picture.shape[1], picture.shape[0]))
        self._cropped, self._refused = self._cropped + (found is not None), self._refused + (found is None)
        return found

    def _found(self, frame: Frame, crop: float, now_s: float, size: tuple[int, int]) -> Aim | None:
        reference = self._newest(now_s)
        if reference is None or frame.index - reference.frame > MOST_AGE:
            return None
        earlier = self._copies.get(reference.frame)
        window = None if earlier is None else window_of(earlier, self._copies[frame.index], crop, size)
        return None if window is None else Aim(window, reference, size)

    def answered(self, answer: PastAnswer) -> None:
        """An answer was computed."""
        if answer.is_whole:
            self._answers.append(answer)

    def age(self, frame: int, now_s: float) -> int:
        """Frames from the answer that a crop of this frame would refer to; 0 where there is none."""
        newest = self._newest(now_s)
        return 0 if newest is None else frame - newest.frame

    def notes(self) -> Notes:
        """Frames that were run in part, and frames that were run whole in place of that."""
        return {"cropped": float(self._cropped), "whole_instead": float(self._refused)}

    def _newest(self, now_s: float) -> PastAnswer | None:
        out = [answer for answer in self._answers if answer.out_s <= now_s]
        return max(out, key=lambda answer: answer.frame, default=None)

    def _remember(self, frame: int, small: Small) -> None:
        self._copies[frame] = small
        while len(self._copies) > _KEPT:
            del self._copies[next(iter(self._copies))]
