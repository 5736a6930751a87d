"""Shortcuts of the twin for tests."""

from __future__ import annotations

from typing import Any

import numpy as np

from controller.records import Status
from envs.twin.shortcut import NOTHING, Asked, Verdict


class EveryThird:
    """Answers every third frame with the newest answer."""

    reason = Status.FILTERED
    look_s = 0.0
    memory = NOTHING
    needs_newest = True

    def verdict(self, asked: Asked, memory: Any) -> Verdict:
        return Verdict(np.asarray(asked.frame % 3 == 2))
