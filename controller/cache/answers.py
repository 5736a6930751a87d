"""The cache of a device, which twin and device share: whose answer stands for a picture with this key.

Theory of operation. A picture is known by its key, 64 numbers of length 1. ``nearest`` finds the kept keys that are
close to one, and ``answer_to`` lets those within the threshold vote. A winner's answer stands, except that a small
share of such frames is run all the same. A frame that is run is remembered; when its answer comes (``answered``), it
becomes an entry, and evidence for the threshold: did the closest answer agree with it? A frame that is run to verify an
answer that agrees becomes no entry, because one like it is there.

Answers are not equally good: that of a fallback is worse than the one it stands in for. Each comes with the score that
its decision is expected to bring. One that is worse than what runs bring now, by more than the agreement that is asked
for leaves room for, does not vote and is no evidence, and goes when a better one to such a picture comes. While runs
bring no better ones, as without a MEC, it counts.

Who calls it measures or models the times of a look.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from controller.cache.eviction import EVICTIONS
from controller.cache.rules import CacheRules
from controller.cache.store import Neighbour, Store
from controller.cache.threshold import Threshold
from controller.cache.vote import NEIGHBOURS, Score, winner
from controller.cache.worth import Capacity, Worth
from controller.records import Float32s
from controller.reuse import PastAnswer

#: Frames that wait for their answer; of frames without one, the oldest are forgotten.
_MOST_PENDING = 64
#: A verified answer was right if it agrees so far with the fresh one.
_RIGHT = 0.5
#: While little has been verified, more is: at first so many times the share on top, and half as many after so many
#: frames. A threshold that little evidence made too large is found out soon.
_FIRST_MORE, _HALF_AFTER = 25.0, 5
#: Weight of the newest answer in the mean of what runs are expected to bring.
_EXPECTED_ALPHA = 0.1


@dataclass(frozen=True, slots=True)
class _Asked:
    """A frame that was looked up and is run."""

    key: Float32s
    asked_s: float
    closest: Neighbour | None  # whose answer is compared with the fresh one
    verifies: bool  # that answer would have stood
    outdone: tuple[int, ...]  # entries that a better answer takes the place of


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


@dataclass
class AnswerCache:
    """Owns the entries, the threshold, and the frames that wait for their answer."""

    rules: CacheRules
    score: Score
    seed: int = 0
    counts: Counts = field(default_factory=Counts)

    def __post_init__(self) -> None:
        rules = self.rules
        self.store = Store(rules.most_bytes, rules.ttl_s, EVICTIONS[rules.eviction]())
        self.threshold = Threshold(rules.agreement, rules.threshold)
        self.worth, self.capacity = Worth(), Capacity(self.store.most_entries)
        self._pending: dict[int, _Asked] = {}
        self._expected = 0.0  # what a run brings now
        self._slowdown = 1.0
        self._rng = np.random.default_rng(self.seed)

    def looks_up(self, slack_s: float = math.inf) -> bool:
        """Whether the next frame is looked up; asked once for each frame. ``slack_s``: time to its deadline."""
        looks = self.worth.looks_up(slack_s)
        self.counts.rested += not looks
        return looks

    def nearest(self, key: Float32s, now_s: float) -> list[Neighbour]:
        """The closest entry, and all that may vote, the closest first; ``key`` (64,) of length 1."""
        return self.store.nearest(key, now_s, NEIGHBOURS, self.threshold.distance)

    def answer_to(
        self, frame: int, key: Float32s, near: Sequence[Neighbour], now_s: float, search_s: float
    ) -> PastAnswer | None:
        """The answer that stands for a frame; None: it is to be run. ``search_s``: what ``nearest`` took on a device
        that is not slowed down."""
        self.capacity.search_s.add(search_s / max(len(self.store), 1))
        if near and self.threshold.looked_up(near[0].distance):
            self.counts.scenes += 1
        within = [neighbour for neighbour in near if neighbour.distance <= self.threshold.distance]
        won = winner([neighbour for neighbour in within if self._is_good(neighbour.answer)], self.score)
        if won is not None and self._rng.random() >= self._verify_frac:
            self.counts.hits += 1
            self.capacity.looked(self.store.use(won.entry))
            return won.answer
        self.capacity.looked(None)
        # Neighbours that do not agree are no evidence: whatever the threshold is, they do not answer.
        closest = won if within else next((neighbour for neighbour in near if self._is_good(neighbour.answer)), None)
        outdone = tuple(neighbour.entry for neighbour in within if not self._is_good(neighbour.answer))
        self._remember(frame, _Asked(key, now_s, closest, won is not None, outdone))
        return None

    def looked(self, look_s: float, answered: bool, slowdown: float) -> None:
        """A frame was looked up, which took ``look_s`` on a device that is not slowed down."""
        self.counts.looked_up += 1
        self._slowdown = slowdown
        self.worth.looked(look_s * slowdown, answered)
        if self.capacity.is_due and self.capacity.review(len(self.store), self.worth.run_s.value / slowdown):
            self.store.capacity = self.capacity.entries

    def waits_for(self, frame: int) -> bool:
        """Whether the frame was looked up, and its answer has not come yet."""
        return frame in self._pending

    def kept(self, keep_s: float) -> None:
        """``answered`` took so long on a device that is not slowed down."""
        self.worth.keep_s.add(keep_s * self._slowdown)

    def answered(self, answer: PastAnswer) -> bool:
        """A frame was run, and this is its answer. Returns whether it had been looked up."""
        asked = self._pending.pop(answer.frame, None)
        if asked is None:
            return False
        self._expected += (_EXPECTED_ALPHA if self._expected else 1.0) * (answer.expected - self._expected)
        cost_s = max(answer.out_s - asked.asked_s, 0.0)
        self.worth.run_s.add(cost_s)
        good = self._is_good(answer)
        right = self._compare(asked, answer) >= _RIGHT if good else asked.verifies
        if not (asked.verifies and right):
            self._keep(asked, answer, cost_s, good)
        return True

    def notes(self) -> dict[str, float | None]:
        """Figures for the summary of a run. ``agreement`` is None where nothing was verified."""
        counts = self.counts
        return {
            "hits": counts.hits,
            "verified": counts.verified,
            "agreement": counts.agreed / counts.verified if counts.verified else None,
            "threshold": self.threshold.distance,
            "entries": len(self.store),
            "kilobytes": self.store.kept_bytes / 1e3,
            "not_looked_up": counts.rested,
            "new_scenes": counts.scenes,
        }

    @property
    def _verify_frac(self) -> float:
        return self.rules.verify_frac * (1.0 + _FIRST_MORE / (1.0 + self.counts.verified / _HALF_AFTER))

    def _is_good(self, answer: PastAnswer) -> bool:
        """Whether an answer is about as good as what a run brings now."""
        return answer.expected >= self._expected - (1.0 - self.rules.agreement)

    def _remember(self, frame: int, asked: _Asked) -> None:
        self._pending[frame] = asked
        if len(self._pending) > _MOST_PENDING:
            del self._pending[next(iter(self._pending))]

    def _keep(self, asked: _Asked, answer: PastAnswer, cost_s: float, good: bool) -> None:
        for entry in asked.outdone if good else ():
            self.store.drop(entry)
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
