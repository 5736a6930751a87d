"""Whether looking up is worth its time, and how many entries are: the expected latency, as in Cachier (Drolia et al.,
"Cachier: edge-caching for recognition applications", ICDCS 2017).

A frame that is looked up takes ``look_s``, and ``run_s`` more unless the cache answers it. So looking up pays if the
share of answered frames is larger than ``look_s / run_s``. The search takes longer the more entries there are, so a
larger cache pays only while what it adds to that share is worth more.
"""

from __future__ import annotations

from collections import deque
from statistics import median

#: Frames that are looked up before the first verdict: a threshold has to be learnt meanwhile.
_FIRST_LOOKS = 256
#: Frames that are looked up between two verdicts.
_LOOKS = 128
#: Frames that are not looked up after a bad verdict: at first, and, after more bad ones, at most.
_FIRST_REST, _LONGEST_REST = 512, 8192
#: Looks between two reviews of the number of entries, and how many entries are always allowed.
_REVIEW, _LEAST_ENTRIES = 512, 64


class Median:
    """Owns the last measurements of a time. Their median is not misled by moments in which the machine was busy."""

    def __init__(self) -> None:
        self._last: deque[float] = deque(maxlen=_LOOKS + 1)

    def add(self, value: float) -> None:
        self._last.append(value)

    @property
    def value(self) -> float:
        """0 before the first."""
        return median(self._last) if self._last else 0.0


class Worth:
    """Owns the medians of all times, and decides which frames are looked up."""

    def __init__(self) -> None:
        self.look_s, self.run_s = Median(), Median()
        self._answered = self._looks = self._rest = 0
        self._limit, self._next_rest = _FIRST_LOOKS, _FIRST_REST

    def looks_up(self) -> bool:
        """Whether to look up the next frame."""
        if not self._rest:
            return True
        self._rest -= 1
        return False

    def looked(self, look_s: float, answered: bool) -> None:
        """A frame was looked up."""
        self.look_s.add(look_s)
        self._looks += 1
        self._answered += answered
        if self._looks >= self._limit:
            self._judge()

    def _judge(self) -> None:
        if self._answered * self.run_s.value >= self._looks * self.look_s.value:
            self._next_rest = _FIRST_REST
        else:
            self._rest, self._next_rest = self._next_rest, min(2 * self._next_rest, _LONGEST_REST)
        self._answered = self._looks = 0
        self._limit = _LOOKS


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
