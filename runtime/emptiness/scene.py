"""One run of the network over a stream: background, scores of the pictures, and the scores just before."""

from __future__ import annotations

from collections import deque

import numpy as np

from controller.emptiness import FRAMES_IN_A_ROW
from runtime.emptiness.background import FAST_STEP, SLOW_STEP, Background, Small
from runtime.emptiness.network import Weights, score

#: A picture with a lower score is taken for empty by the background, whatever the threshold is: two of a hundred cells
#: with this logit hold somebody.
SURELY_EMPTY = -2.0


class Scene:
    """Owns the background, and the scores of the last pictures."""

    def __init__(self, weights: Weights, level: Small) -> None:
        """``level``: the background to begin with."""
        self._weights, self._background = weights, Background(level)
        self._last: deque[float] = deque(maxlen=FRAMES_IN_A_ROW)

    def look(self, small: Small) -> float:
        """The highest score of this picture and those looked at just before; infinite where one says nothing, and
        before there are enough."""
        difference = self._background.difference(small)
        found = score(self._weights, difference.levels)
        empty = found < SURELY_EMPTY and difference.is_sure
        self._background.follow(small, FAST_STEP if empty or difference.is_other_place else SLOW_STEP)
        self._last.append(found if difference.is_sure else np.inf)
        return float(np.max(self._last)) if len(self._last) == FRAMES_IN_A_ROW else np.inf
