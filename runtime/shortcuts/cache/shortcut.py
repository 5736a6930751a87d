"""The cache as a shortcut: a frame whose picture is much like an earlier one gets that one's answer.

``controller.cache.answers`` has the rules. Here pictures become keys, and what a look takes is measured.

Nothing is kept beyond a run of a device, so an answer is always one of the same bundle.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

from controller.cache.answers import AnswerCache
from controller.cache.vote import Score
from controller.records import Float32s, Status
from controller.reuse import PastAnswer, Reuse
from runtime.config.sections.shortcuts import CacheSection
from runtime.shortcuts.base import Context, Notes, Shortcut
from runtime.shortcuts.cache.keys import key_of, normalised
from runtime.sources.frames import Frame
from runtime.workloads.types import Image

KeyOf = Callable[[Image], Float32s | None]


def caches(settings: CacheSection, score: Score, seed: int = 0) -> tuple[EdgeCache, ...]:
    """The cache that the settings describe, new and empty; () if they switch it off. ``score``: the agreement of two
    answers, ``Workload.score``."""
    return (EdgeCache(settings, score, seed=seed),) if settings.size_bytes else ()


@dataclass
class EdgeCache(Shortcut):
    """Owns the cache of a run."""

    settings: CacheSection
    score: Score
    key_of: KeyOf = key_of
    clock: Callable[[], float] = time.perf_counter  # times what a look takes here
    seed: int = 0

    needs_picture = True
    name = "cache"

    def __post_init__(self) -> None:
        self.cache = AnswerCache(self.settings.rules(), self.score, self.seed)

    def try_answer(self, frame: Frame, context: Context) -> Reuse | None:
        if not self.cache.looks_up(context.slack_s):
            return None
        began_s = self.clock()
        answer = self._look_up(frame, context)
        self.cache.looked(self.clock() - began_s, answer is not None, context.slowdown)
        return None if answer is None else Reuse(Status.CACHED, answer)

    def _look_up(self, frame: Frame, context: Context) -> PastAnswer | None:
        key = self.key_of(context.picture())
        key = None if key is None else normalised(key)
        if key is None:
            self.cache.counts.keyless += 1
            return None
        began_s = self.clock()
        near = self.cache.nearest(key, context.now_s)
        return self.cache.answer_to(frame.index, key, near, context.now_s, self.clock() - began_s)

    def answered(self, answer: PastAnswer) -> None:
        began_s = self.clock()
        if self.cache.answered(answer):
            self.cache.kept(self.clock() - began_s)

    def notes(self) -> Notes:
        return self.cache.notes()
