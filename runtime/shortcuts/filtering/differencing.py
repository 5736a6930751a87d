"""The input filter by differences: a picture that is much like that of the newest answer needs no new answer.

The rule is that of ``controller.filtering``. The threshold is fixed, or follows a target of agreement.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable
from typing import Any

import numpy as np

from controller.filtering import MOST_AGE, change, grown, is_verified, shows_nothing_new, shrunk, threshold_of
from controller.records import Status
from controller.reuse import PastAnswer, Reuse
from runtime.shortcuts.base import RUN, Context, Notes, Shortcut
from runtime.shortcuts.filtering.features import Differencer, Sketch
from runtime.sources.frames import Frame

#: More frames than ever wait for their answers.
KEPT = 32

Score = Callable[[Any, Any], float]


class Differencing(Shortcut):
    """Owns sketches of the pictures of the last frames that were not filtered, and the threshold."""

    needs_picture = True
    name = "filter"

    def __init__(
        self,
        differencer: Differencer,
        score: Score,
        *,
        threshold: float | None,
        target: float,
        most_age: int,
        moves: bool = False,
    ) -> None:
        """``threshold``: a fixed one; None lets it follow the ``target`` of agreement, from 0 to 1. ``score``: of an
        answer against another one that is taken for the truth. ``most_age``: of the answer that may stand, in
        frames. ``moves``: whether answers move on by forecasts; then a threshold that adapts is one of the change."""
        self._differencer, self._score, self._fixed = differencer, score, threshold
        self._target, self._most_age, self._moves = target, most_age, moves and threshold is None
        self._shift = 0.0
        self._sketches: deque[tuple[int, Sketch]] = deque(maxlen=KEPT)  # of frames that were not filtered
        self._verified: deque[tuple[int, Any]] = deque(maxlen=KEPT)  # frames that are verified, with the older answers
        self._filtered = self._would_be = 0
        self._motion = -1, math.nan  # frame that was looked at last, and its difference
        self._agreements: list[float] = [0.0, 0.0]  # number and sum

    @property
    def threshold(self) -> float:
        """Largest difference, or change where answers move on, at which a frame is filtered."""
        return float(threshold_of(self._shift)) if self._fixed is None else self._fixed

    def try_answer(self, frame: Frame, context: Context) -> Reuse | None:
        sketch = self._differencer.sketch(context.picture())
        newest = context.newest
        before = None if newest is None else next((s for number, s in self._sketches if number == newest.frame), None)
        stands = newest is not None and before is not None and self._would_stand(frame, newest, before, sketch)
        if stands and not self._verifies:
            self._filtered += 1
            return Reuse(Status.FILTERED, newest)
        self._sketches.append((frame.index, sketch))
        if newest is None or not stands:
            return None
        self._verified.append((frame.index, newest.at(frame.index).prediction))
        return RUN

    def _would_stand(self, frame: Frame, newest: PastAnswer, before: Sketch, sketch: Sketch) -> bool:
        age, difference = frame.index - newest.frame, self._differencer.difference(before, sketch)
        self._motion = frame.index, difference if age <= MOST_AGE else math.nan
        if self._moves:
            difference = float(change(difference, age))
        stands = bool(shows_nothing_new(difference, age, self.threshold, self._most_age))
        if self._fixed is None:
            self._shift = float(grown(self._shift, difference, age, self._target))
        self._would_be += stands
        return stands

    @property
    def _verifies(self) -> bool:
        """Whether the frame that would be filtered is run all the same."""
        return self._fixed is None and bool(is_verified(self._would_be))

    def motion(self, frame: int) -> float:
        return self._motion[1] if self._motion[0] == frame else math.nan

    def answered(self, answer: PastAnswer) -> None:
        for pair in [pair for pair in self._verified if pair[0] == answer.frame]:
            self._verified.remove(pair)
            agreement = float(np.clip(self._score(pair[1], answer.prediction), 0.0, 1.0))
            self._shift = float(shrunk(self._shift, agreement))
            self._agreements[0] += 1
            self._agreements[1] += agreement

    def notes(self) -> Notes:
        """How many frames were filtered, the threshold now, and what the verified frames said."""
        count, total = self._agreements
        notes: Notes = {"filtered": float(self._filtered), "threshold": self.threshold}
        if self._fixed is not None:
            return notes
        return notes | {"verified": count, "agreement": total / count if count else None}
