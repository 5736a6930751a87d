"""The cache as a shortcut: a frame whose picture is much like an earlier one gets that one's answer.

Theory of operation. ``try_answer`` makes the key of the picture and asks for its nearest neighbours. Those within the
threshold vote. A winner's answer stands, except that a small share of such frames is run all the same. A frame that is
run is remembered; when its answer comes (``answered``), it becomes an entry, and evidence for the threshold: did the
closest answer agree with it? A frame that is run to verify an answer that agrees becomes no entry, because one like it
is there.

Nothing is kept beyond a run of a device, so an answer is always one of the same bundle.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from controller.records import Float32s, Status
from controller.reuse import PastAnswer, Reuse
from runtime.config.tree import CacheSection
from runtime.shortcuts.base import Context, Shortcut
from runtime.shortcuts.cache.eviction import EVICTIONS
from runtime.shortcuts.cache.keys import key_of, normalised
from runtime.shortcuts.cache.store import Neighbour, Store
from runtime.shortcuts.cache.threshold import Threshold
from runtime.shortcuts.cache.vote import NEIGHBOURS, Score, winner
from runtime.shortcuts.cache.worth import Capacity, Worth
from runtime.sources.frames import Frame
from runtime.workloads.types import Image

#: Frames that wait for their answer; of frames without one, the oldest are forgotten.
_MOST_PENDING = 64
#: A verified answer was right if it agrees so far with the fresh one.
_RIGHT = 0.5

KeyOf = Callable[[Image], Float32s | None]


@dataclass(frozen=True, slots=True)
class _Asked:
    """A frame that was looked up and is run."""

    key: Float32s
    asked_s: float
    closest: Neighbour | None  # whose answer is compared with the fresh one
    verifies: bool  # that answer would have stood


@dataclass
class Counts:
    """What became of the frames so far."""

    looked_up: int = 0
    hits: int = 0  # answered by the cache
    verified: int = 0  # would have been, and were run to compare the answers
    agreed: float = 0.0  # sum of these agreements
    rested: int = 0  # not looked up, because looking up did not pay
    keyless: int = 0  # pictures without a key
    scenes: int = 0  # changes of the scene that were noticed


def caches(settings: CacheSection, score: Score, seed: int = 0) -> tuple[EdgeCache, ...]:
    """The cache that the settings describe, new and empty; () if they switch it off. ``score``: the agreement of two
    answers, ``Workload.score``."""
    return (EdgeCache(settings, score, seed=seed),) if settings.size_bytes else ()


@dataclass
class EdgeCache(Shortcut):
    """Owns the entries, the threshold, and the frames that wait for their answer."""

    settings: CacheSection
    score: Score
    key_of: KeyOf = key_of
    clock: Callable[[], float] = time.perf_counter  # times what a look takes here
    seed: int = 0
    counts: Counts = field(default_factory=Counts)

    needs_picture = True
    name = "cache"

    def __post_init__(self) -> None:
        eviction = EVICTIONS[self.settings.eviction]()
        self.store = Store(self.settings.size_bytes, self.settings.ttl_s, eviction)
        self.threshold = Threshold(self.settings.agreement, self.settings.threshold)
        self.worth, self.capacity = Worth(), Capacity(self.store.most_entries)
        self._pending: dict[int, _Asked] = {}
        self._rng = np.random.default_rng(self.seed)

    def try_answer(self, frame: Frame, context: Context) -> Reuse | None:
        if not self.worth.looks_up():
            self.counts.rested += 1
            return None
        began_s = self.clock()
        reuse = self._look_up(frame, context)
        self.worth.looked((self.clock() - began_s) * context.slowdown, reuse is not None)
        if self.capacity.is_due and self.capacity.review(len(self.store), self.worth.run_s.value / context.slowdown):
            self.store.capacity = self.capacity.entries
        return reuse

    def _look_up(self, frame: Frame, context: Context) -> Reuse | None:
        self.counts.looked_up += 1
        key = self.key_of(context.picture())
        key = None if key is None else normalised(key)
        if key is None:
            self.counts.keyless += 1
            return None
        near = self._nearest(key, context.now_s)
        within = near if near and near[0].distance <= self.threshold.distance else []
        won = winner(within, self.score) if within else None
        stands = won is not None and self._rng.random() >= self.settings.verify_frac
        if won is not None and stands:
            self.counts.hits += 1
            self.capacity.looked(self.store.use(won.entry))
            return Reuse(Status.CACHED, won.answer)
        self.capacity.looked(None)
        # Neighbours that do not agree are no evidence: whatever the threshold is, they do not answer.
        closest = won if within else next(iter(near), None)
        self._remember(frame.index, _Asked(key, context.now_s, closest, won is not None))
        return None

    def _nearest(self, key: Float32s, now_s: float) -> list[Neighbour]:
        began_s = self.clock()
        near = self.store.nearest(key, now_s, NEIGHBOURS, self.threshold.distance)
        self.capacity.search_s.add((self.clock() - began_s) / max(len(self.store), 1))
        if near and self.threshold.looked_up(near[0].distance):
            self.counts.scenes += 1
        return near

    def _remember(self, frame: int, asked: _Asked) -> None:
        self._pending[frame] = asked
        if len(self._pending) > _MOST_PENDING:
            del self._pending[next(iter(self._pending))]

    def answered(self, answer: PastAnswer) -> None:
        asked = self._pending.pop(answer.frame, None)
        if asked is None:
            return
        cost_s = max(answer.out_s - asked.asked_s, 0.0)
        self.worth.run_s.add(cost_s)
        agreement = self._compare(asked, answer)
        if not (asked.verifies and agreement >= _RIGHT):
            self.store.add(asked.key, answer, cost_s, answer.out_s)

    def _compare(self, asked: _Asked, answer: PastAnswer) -> float:
        """How far the closest answer agrees with the fresh one; 0 if there was none."""
        if asked.closest is None:
            return 0.0
        agreement = self.score(asked.closest.answer.prediction, answer.prediction)
        self.threshold.learn(asked.closest.distance, agreement)
        if asked.verifies:
            self.counts.verified += 1
            self.counts.agreed += agreement
        return agreement

    def notes(self) -> dict[str, float]:
        counts = self.counts
        agreement = {"agreement": counts.agreed / counts.verified} if counts.verified else {}
        return {
            "hits": counts.hits,
            "verified": counts.verified,
            **agreement,
            "threshold": self.threshold.distance,
            "entries": len(self.store),
            "kilobytes": self.store.kept_bytes / 1e3,
            "not_looked_up": counts.rested,
            "new_scenes": counts.scenes,
        }
