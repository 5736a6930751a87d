"""The cache of a device in the twin: the rules of ``controller.cache`` on keys of pictures and recorded answers.

The rules are the device's own, so nothing of them is simplified. Three things are. The answer to a picture is the
recorded one of the sample that it shows, though a sample that comes again is shown in another light. What a look takes
is a constant and a time per entry, not a measurement. And a cached answer is new to the frame that it stands for, but
no later frame reuses it; that only matters to frame strides and filters, and so not where samples are no stream.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple

import numpy as np

from controller.cache.answers import AnswerCache
from controller.cache.rules import CacheRules
from controller.costs import CostTable
from controller.records import Bools, Float32s, Ints, Status
from controller.reuse import PastAnswer, in_time
from envs.twin.shortcut import Asked, Verdict
from envs.twin.state import record_type
from runtime.shortcuts.cache.keys import key_of, normalised
from runtime.workloads.types import Image

#: Profiled device time of a key of a small picture and a look without entries, of the search per entry, and of keeping
#: an answer. Measured by `python -m benchmarks.bench_cache --times`, and rounded up.
LOOK_S, SEARCH_S, KEEP_S = 1.5e-4, 1e-8, 2.5e-5


class ShownSamples(NamedTuple):
    """What the samples of a split show."""

    keys: Float32s  # (S, 64), of length 1
    has_key: Bools  # (S,) others are run
    truth: Ints  # (S,) class of each


def shown_by(samples: Iterable[tuple[Image, int]]) -> ShownSamples:
    """The keys of pictures, and their classes."""
    keys: list[Float32s | None] = []
    truth: list[int] = []
    for picture, label in samples:
        key = key_of(picture)
        keys.append(None if key is None else normalised(key))
        truth.append(label)
    known = np.array([key is not None for key in keys])
    nothing = np.zeros_like(next((key for key in keys if key is not None), np.zeros(1, np.float32)))
    return ShownSamples(np.array([nothing if key is None else key for key in keys]), known, np.array(truth))


class CacheTable:
    """The cache, over one split of a bundle of class labels."""

    reason = Status.CACHED
    needs_newest = False
    memory = record_type(cache="O")  # an AnswerCache once a frame was asked about
    look_s = 0.0  # each verdict has its own

    def __init__(self, rules: CacheRules, shown: ShownSamples, costs: CostTable, label: Ints) -> None:
        """``label``: (V, S) the recorded answers."""
        self._rules, self._shown, self._label = rules, shown, label
        self._variant, self._expected = costs.every_path.space.variant, costs.every_path.accuracy

    def verdict(self, asked: Asked, memory: Any) -> Verdict:
        stands, score, look_s = np.zeros(len(asked.env), bool), np.zeros(len(asked.env)), np.zeros(len(asked.env))
        for number, env in enumerate(asked.env.tolist()):
            cache = memory["cache"][env] or AnswerCache(self._rules, _equal)
            memory["cache"][env] = cache
            self._learn(cache, asked, number)
            slack_s = asked.captured_s[number] + asked.deadline_s[number] - asked.now_s[number]
            if not cache.looks_up(float(slack_s)):
                continue
            answer, look_s[number] = self._look_up(cache, asked, number)
            if answer is not None and _still_in_time(answer, asked, number):
                stands[number], score[number] = True, answer.prediction == self._shown.truth[asked.sample[number]]
        return Verdict(stands, score, look_s=look_s)

    def _look_up(self, cache: AnswerCache, asked: Asked, number: int) -> tuple[PastAnswer | None, float]:
        """The answer that the cache has, and the profiled time of the look."""
        sample, now_s = int(asked.sample[number]), float(asked.now_s[number])
        search_s, answer = SEARCH_S * len(cache.store), None
        if self._shown.has_key[sample]:
            key = self._shown.keys[sample]
            answer = cache.answer_to(int(asked.frame[number]), key, cache.nearest(key, now_s), now_s, search_s)
        else:
            cache.counts.keyless += 1
        cache.looked(LOOK_S + search_s, answer is not None, float(asked.slowdown[number]))
        return answer, LOOK_S + search_s

    def _learn(self, cache: AnswerCache, asked: Asked, number: int) -> None:
        """The answers that have come since the last question, in the order in which they came."""
        frame, now_s = int(asked.frame[number]), float(asked.now_s[number])
        come = [a for a in asked.answers[number] if a["out_s"] <= now_s and cache.waits_for(int(a["frame"]))]
        for answer in sorted(come, key=lambda answer: float(answer["out_s"])):
            sample = (int(asked.sample[number]) - (frame - int(answer["frame"]))) % len(self._shown.truth)
            label, expected = self._label[self._variant[answer["row"]], sample], self._expected[answer["row"]]
            cache.answered(PastAnswer(int(answer["frame"]), float(answer["out_s"]), int(label), None, float(expected)))
            cache.kept(KEEP_S)


def _equal(one: Any, other: Any) -> float:
    return float(one == other)


def _still_in_time(answer: PastAnswer, asked: Asked, number: int) -> bool:
    waits_s = max(answer.out_s - float(asked.captured_s[number]), 0.0)
    return bool(in_time(waits_s, float(asked.deadline_s[number])))
