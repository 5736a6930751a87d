"""The input filter in the twin: the rule of ``controller.filtering`` on the differences of the recorded samples.

The device compares a verified frame's answer with the older one. Recorded are not the answers but their scores, so here
the older answer's score against the frame's truth stands for their agreement.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from controller.costs import CostTable
from controller.filtering import MOST_AGE, change, grown, is_verified, shows_nothing_new, shrunk, threshold_of
from controller.records import Floats, Status
from envs.twin.shortcut import Asked, Verdict
from envs.twin.state import record_type
from runtime.bundles.recorded import Recorded
from runtime.config.sections.shortcuts import FilterSection
from runtime.shortcuts.filtering.features import LOOK_S, Differencer
from runtime.workloads.types import Image

#: Verified frames whose answers are not out yet; more than may be in flight at a time.
_PENDING = 16


def differences(differencer: Differencer, pictures: Iterable[Image]) -> Floats:
    """(MOST_AGE + 1, S) difference of each picture from the one so many before; the one before the first is the
    last."""
    sketches = [differencer.sketch(picture) for picture in pictures]
    found = np.zeros((MOST_AGE + 1, len(sketches)))
    for age in range(1, MOST_AGE + 1):
        for sample, sketch in enumerate(sketches):
            found[age, sample] = differencer.difference(sketches[sample - age], sketch)
    return found


class FilterTable:
    """The filter by differences, over one split of a bundle."""

    reason = Status.FILTERED
    needs_newest = True
    memory = record_type(
        shift="f8",  # of the threshold
        would_be="i8",  # frames that were filtered or verified
        number=("i8", (_PENDING,)),  # of verified frames, counted from 1; 0 where there is none
        age=("i8", (_PENDING,)),  # of the older answer
        row=("i8", (_PENDING,)),  # of the cost table, whose answer that is
        sample=("i8", (_PENDING,)),  # that it was computed for
    )

    def __init__(
        self, config: FilterSection, table: Floats, costs: CostTable, recorded: Recorded, *, moves: bool = False
    ) -> None:
        """``table``: see ``differences``. ``moves``: whether ``recorded`` has the scores of answers that move on."""
        lagged = recorded.lagged
        assert lagged is not None, "the bundle of a stream"
        self._difference, self._variant = table, costs.every_path.space.variant
        self._aged: NDArray[np.float32] = np.concatenate((recorded.score[None], lagged))
        self._fixed, self._target, self._most_age = config.threshold, config.target, config.max_age
        self._moves = moves and config.threshold is None
        self.look_s = LOOK_S[config.feature]

    def verdict(self, asked: Asked, memory: Any) -> Verdict:
        self._learn(asked, memory)
        own, known = memory[asked.env], asked.has_answer
        age = np.where(known, asked.age, 0)
        motion = self._difference[np.clip(age, 0, MOST_AGE), asked.sample]
        difference = change(motion, age) if self._moves else motion
        threshold = threshold_of(own["shift"]) if self._fixed is None else self._fixed
        stands = known & shows_nothing_new(difference, age, threshold, self._most_age)
        motion = np.where(known & (age <= MOST_AGE), motion, np.nan)
        if self._fixed is not None:
            return Verdict(stands, motion=motion)
        memory["shift"][asked.env] = np.where(known, grown(own["shift"], difference, age, self._target), own["shift"])
        memory["would_be"][asked.env] += stands
        verified = stands & is_verified(memory["would_be"][asked.env])
        self._remember(asked, memory, np.flatnonzero(verified))
        return Verdict(stands & ~verified, motion=motion)

    def _remember(self, asked: Asked, memory: Any, which: Any) -> None:
        """Frames that are verified; each takes the place of the oldest one."""
        env = asked.env[which]
        age, samples = asked.age[which], self._aged.shape[2]
        new = asked.frame[which] + 1, age, asked.row[which], (asked.sample[which] - age) % samples
        for name, column in zip(("number", "age", "row", "sample"), new, strict=True):
            memory[name][env] = np.column_stack((column, memory[name][env, :-1]))

    def _learn(self, asked: Asked, memory: Any) -> None:
        """What the answers that have come since the last question say about the older ones."""
        pending = memory["number"][asked.env]
        if self._fixed is not None or not pending.any():
            return
        out = asked.answers["out_s"] <= asked.now_s[:, None]
        answered = (out[:, None] & (asked.answers["frame"][:, None] + 1 == pending[:, :, None])).any(axis=2)
        for which, place in zip(*np.nonzero(answered & (pending > 0)), strict=True):
            of = memory[asked.env[which]]
            score = self._aged[min(of["age"][place], MOST_AGE), self._variant[of["row"][place]], of["sample"][place]]
            memory["shift"][asked.env[which]] = shrunk(of["shift"], float(score))
            memory["number"][asked.env[which], place] = 0
