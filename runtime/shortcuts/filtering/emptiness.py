"""Empty frames are not run: their answer is that nothing is there.

The rule is that of ``controller.emptiness``; what it looks at is in ``runtime.emptiness``.
"""

from __future__ import annotations

from collections import deque

from controller.emptiness import is_verified, looks_empty, lowered, raised
from controller.records import Status
from controller.reuse import PastAnswer, Reuse
from runtime.emptiness.file import EmptyKnown
from runtime.emptiness.scene import Scene
from runtime.shortcuts.base import RUN, Context, Shortcut
from runtime.sources.frames import Frame
from runtime.workloads.base import Task

#: More frames than ever wait for their answers.
KEPT = 32


class Emptiness(Shortcut):
    """Owns the scene, the threshold, and which of the last frames were verified or did not look empty."""

    needs_picture = True
    name = "empty"

    def __init__(self, known: EmptyKnown, task: Task) -> None:
        """``task``: says what the prediction for an empty frame is, and what of others is in the window."""
        self._known, self._task, self._nothing = known, task, task.nothing()
        self._scene = Scene(known.weights, known.level)
        self._shift = 0.0
        self._verified: deque[int] = deque(maxlen=KEPT)
        self._run: deque[int] = deque(maxlen=KEPT)
        self._empty = self._filtered = self._checked = self._missed = 0

    @property
    def threshold(self) -> float:
        """Frames with a lower score are empty."""
        return self._known.manifest.threshold + self._shift

    def try_answer(self, frame: Frame, context: Context) -> Reuse | None:
        score = self._scene.look(self._known.small(context.picture()))
        if not looks_empty(score, self.threshold):
            self._run.append(frame.index)
            return None
        self._empty += 1
        if is_verified(self._empty):
            self._verified.append(frame.index)
            return RUN
        self._filtered += 1
        return Reuse(Status.FILTERED, PastAnswer(frame.index, context.now_s, self._nothing))

    def answered(self, answer: PastAnswer) -> None:
        holds = self._task.inside(answer.prediction, self._known.window) != self._nothing
        recall = self._known.manifest.recall
        if answer.frame in self._verified:
            self._verified.remove(answer.frame)
            self._checked += 1
            self._missed += holds
            self._shift = lowered(self._shift, recall) if holds else self._shift
        elif holds and answer.frame in self._run:
            self._run.remove(answer.frame)
            self._shift = raised(self._shift, recall)

    def notes(self) -> dict[str, float | None]:
        """How many frames were empty, how many of these were run to verify it and held a target, and the threshold."""
        counts = {"filtered": self._filtered, "verified": self._checked, "missed": self._missed}
        return {**counts, "threshold": self.threshold}
