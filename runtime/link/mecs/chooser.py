"""Chooses the MEC that a device asks. No I/O and no clock here.

Theory of operation. One MEC is the home. It is left in three ways:

1. *It fails*: its link is down, or its breaker is open. The best healthy MEC becomes the home at once.
2. *It is in doubt*: a request is overdue and nothing was heard since. The next frames go to the best other MEC, but the
   home stays: it is asked again as soon as it is heard. Such a moment is often a single lost packet.
3. *Another one is better*, and has been healthy and better for ``PATIENCE_S`` without a break. This is also how a MEC
   that was preferred before it failed becomes the home again.

A MEC is better if a request has less time to expect there, by a clear margin. The order in which the user named the
MECs decides within the margin: an earlier one becomes the home again at half the margin, so that two MECs near the
margin do not take turns. Every change of kind 3 doubles the patience, up to ``MOST_PATIENCE_S``; otherwise two MECs
that are equally overloaded would take turns as well, because only the one that is asked shows its queue. A home that
has stayed for ten times the patience brings ``PATIENCE_S`` back.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

PATIENCE_S = 5.0
MOST_PATIENCE_S = 80.0
_CALM_TIMES = 10.0
#: A later MEC is better than an earlier one if it is faster by this share of the earlier one's time, and by this time.
_MARGIN_FRAC, _MARGIN_S = 0.2, 0.02


@dataclass(frozen=True, slots=True)
class Health:
    """What is known of one MEC now."""

    is_well: bool  # its link is up and its breaker is closed
    in_doubt: bool  # a request is overdue, and nothing was heard since
    expected_s: float  # that a request takes there, beside its way up


class Chooser:
    """Owns which MEC is the home, and for how long others have been better."""

    def __init__(self, count: int, now_s: float) -> None:
        self.home = 0
        self._patience_s = PATIENCE_S
        self._changed_s = now_s  # when the home changed last
        self._better_s = [math.inf] * count  # since when each of them is better than the home

    def choose(self, healths: Sequence[Health], now_s: float) -> int:
        """The MEC to ask now; ``healths`` in the order of preference. It is the home if none is well."""
        well = [number for number, health in enumerate(healths) if health.is_well]
        if not healths[self.home].is_well:
            if well:
                self._move(_best(healths, well), now_s)
            return self._asked(healths, well)
        self._watch(healths, now_s)
        patient = [number for number in well if now_s - self._better_s[number] >= self._patience_s]
        if patient:
            self._patience_s = min(2.0 * self._patience_s, MOST_PATIENCE_S)
            self._move(_best(healths, patient), now_s)
        elif now_s - self._changed_s >= _CALM_TIMES * self._patience_s:
            self._patience_s = PATIENCE_S
        return self._asked(healths, well)

    def _asked(self, healths: Sequence[Health], well: Sequence[int]) -> int:
        sure = [number for number in well if not healths[number].in_doubt]
        return self.home if self.home in sure or not sure else _best(healths, sure)

    def _watch(self, healths: Sequence[Health], now_s: float) -> None:
        for number, health in enumerate(healths):
            if not health.is_well or not _is_better(healths, number, self.home):
                self._better_s[number] = math.inf
            else:
                self._better_s[number] = min(self._better_s[number], now_s)

    def _move(self, home: int, now_s: float) -> None:
        self.home, self._changed_s = home, now_s
        self._better_s = [math.inf] * len(self._better_s)


def _best(healths: Sequence[Health], among: Sequence[int]) -> int:
    best = among[0]
    for number in among[1:]:
        if _is_better(healths, number, best):
            best = number
    return best


def _is_better(healths: Sequence[Health], number: int, than: int) -> bool:
    """Whether a MEC is to be asked rather than another one."""
    if number == than:
        return False
    own_s, other_s = healths[number].expected_s, healths[than].expected_s
    margin_s = max(_MARGIN_S, _MARGIN_FRAC * other_s)
    return own_s < other_s - margin_s if number > than else own_s <= other_s + margin_s / 2
