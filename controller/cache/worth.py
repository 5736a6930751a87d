"""Whether looking up is worth its time, and how many entries are: the expected latency, as in Cachier (Drolia et al.,
"Cachier: edge-caching for recognition applications", ICDCS 2017).

A frame that is looked up takes ``look_s``. Unless the cache answers it, it takes ``run_s`` more, and ``keep_s`` to keep
its answer. So looking up pays if the share of answered frames is larger than about ``look_s / run_s``. A cache that
answers nothing yet may still be learning what it may answer, which takes the longer the less repeats. Nobody can tell
the two cases apart beforehand, so looks that do not pay have a budget: a small share of the time of runs, saved up to a
limit. The search takes longer the more entries there are, so a larger cache pays only while what it adds to the share
of answers is worth more.
"""

from __future__ import annotations

import math
from collections import deque
from statistics import median

#: Measurements of which a median is taken, and how often it is at least.
_MEASURED, _EVERY = 129, 16
#: Time that looks may cost beyond what they save: so much of the time of a run for each frame, and so many runs at the
#: beginning, which is also the most that is saved up. A stream of 2,000 frames that never repeats gets 1.4 % slower.
#: Most of it is spent at the beginning: evidence in a row is worth more than a little now and then.
_FRAC, _MOST_RUNS = 0.004, 20.0
#: Time of a look in the budget, at least: it also drives what a run needs out of the processor's cache, and where other
#: work makes runs wait, it seems shorter beside them than it is.
_LEAST_LOOK_RUNS = 0.06
#: How many runs must be saved up before a cache that rests looks again: pictures that repeat soon show in many looks in
#: a row.
_ENOUGH_RUNS = 7.0
#: Share of the time to the deadline that a look may take: one that finds nothing makes the answer late. So many frames
#: in a row may go without a look, so that a device that got faster is noticed.
_MOST_OF_SLACK, _MOST_HURRIED = 0.1, 63
#: Looks between two reviews of the number of entries, and how many entries are always allowed.
_REVIEW, _LEAST_ENTRIES = 512, 64


class Median:
    """Owns the last measurements of a time. Their median is not misled by moments in which the machine was busy."""

    def __init__(self) -> None:
        self.value = 0.0  # 0 before the first
        self._last: deque[float] = deque(maxlen=_MEASURED)
        self._due = 0

    def add(self, value: float) -> None:
        self._last.append(value)
        self._due -= 1
        if self._due <= 0:  # sorting each time would take longer than a search
            self.value, self._due = median(self._last), min(len(self._last) // 4, _EVERY)


class Worth:
    """Owns the medians of all times and the budget, and decides which frames are looked up."""

    def __init__(self) -> None:
        self.look_s, self.keep_s, self.run_s = Median(), Median(), Median()
        self._runs = _MOST_RUNS  # the budget, in times of a run
        self._rests = False
        self._hurried = 0  # frames in a row that left no time for a look

    def looks_up(self, slack_s: float = math.inf) -> bool:
        """Whether to look up the next frame; asked once for each frame. ``slack_s``: time to its deadline."""
        self._earn(_FRAC)
        self._rests &= self._runs < _ENOUGH_RUNS
        hurries = self.look_s.value > _MOST_OF_SLACK * slack_s and self._hurried < _MOST_HURRIED
        self._hurried = self._hurried + 1 if hurries else 0
        return not (self._rests or hurries)

    def looked(self, look_s: float, answered: bool) -> None:
        """A frame was looked up."""
        self.look_s.add(look_s)
        if self.run_s.value:
            spent_s = self.look_s.value + (0.0 if answered else self.keep_s.value)
            self._earn(answered - max(spent_s / self.run_s.value, _LEAST_LOOK_RUNS))
        self._rests = self._runs < 0.0

    def _earn(self, runs: float) -> None:
        self._runs = min(self._runs + runs, _MOST_RUNS)


class Capacity:
    """Owns the number of entries that is worth searching.

    An entry that was used not long ago would also be in a smaller cache. So the time since the last use of each entry
    that answered says how many answers a cache of half the size would have missed (Mattson et al., "Evaluation
    techniques for storage hierarchies", 1970). What twice the size would add is taken to be as much again.
    """

    def __init__(self, most: int) -> None:
        self.entries = self._most = most
        self.search_s = Median()  # per entry
        self._since: deque[int] = deque(maxlen=_REVIEW)
        self._looks = 0

    def looked(self, since_use: int | None) -> None:
        """A frame was looked up; how many entries were added or used since the last use of the one that answered."""
        self._looks += 1
        if since_use is not None:
            self._since.append(since_use)

    @property
    def is_due(self) -> bool:
        """Whether it is time for a review."""
        return self._looks >= _REVIEW

    def review(self, kept: int, run_s: float) -> bool:
        """Whether ``entries`` was set anew. ``kept``: how many entries there are; ``run_s``: what a run takes here."""
        now = self._expected_s(0, kept, run_s)
        half_s, double_s = self._expected_s(-1, kept, run_s), self._expected_s(1, kept, run_s)
        self._looks = 0
        self._since.clear()
        if half_s < min(now, double_s):
            self.entries = max(kept // 2, min(_LEAST_ENTRIES, self._most))
        elif double_s < now:
            self.entries = min(2 * max(self.entries, _LEAST_ENTRIES), self._most)
        else:
            return False
        return True

    def _expected_s(self, doublings: int, kept: int, run_s: float) -> float:
        """Seconds per frame that depend on the number of entries, with half as many, as many or twice as many."""
        beyond_half = sum(since > kept // 2 for since in self._since) / self._looks
        return 2.0**doublings * kept * self.search_s.value - doublings * beyond_half * run_s
