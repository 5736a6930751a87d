"""Fold repeated log lines: the first few lines of a kind are printed at once, the others are counted.

Two lines are of one kind if they differ only in numbers and hexadecimal digests. The first three lines of a kind are
printed at once. Further lines are counted in a window of 10 s; at its end the newest of them is printed with the count
and its age. The window doubles up to 60 s while such lines arrive.

New kinds have a budget, because a peer can send any text: lines beyond the budget are counted together. So the output
is bounded for any input: one line per kind and window, and ten new kinds a minute after the first forty.
"""

from __future__ import annotations

import math
import re
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

WINDOW_S = 10.0
LONGEST_WINDOW_S = 60.0
#: Number of lines of a kind that are printed at once, at first and after each window without a line.
AT_ONCE = 3
#: A line that is printed later than this is printed with its age.
_SHOW_AGE_S = 2.0
#: Budget of new kinds, and its growth per second.
KINDS = 40
KINDS_PER_S = 10.0 / 60.0
LONGEST_LINE = 1000

_VARYING = re.compile(r"0x[0-9a-fA-F]+|\b[0-9a-fA-F]{12,}\b|\d+(?:\.\d+)?")


def kind_of(text: str) -> str:
    """The text with numbers and digests replaced; equal for all lines of a kind."""
    return _VARYING.sub("#", text)


def one_line(text: str) -> str:
    """Printable characters only and of bounded length, so the text of a peer cannot control a terminal."""
    shown = text if len(text) <= LONGEST_LINE else f"{text[:LONGEST_LINE]}..."
    return shown if shown.isprintable() else "".join(c if c.isprintable() else " " for c in shown)


@dataclass(slots=True)
class _Kind:
    """Lines of one kind in the current window."""

    newest: str
    newest_s: float
    began_s: float
    window_s: float = WINDOW_S
    count: int = 0  # lines not printed yet
    at_once: int = 0  # lines that may still be printed at once

    @property
    def end_s(self) -> float:
        return self.began_s + self.window_s


class Repeats:
    """Owns the recent kinds of lines. ``emit`` prints a line; several threads may call this object."""

    def __init__(self, emit: Callable[[str], None], clock: Callable[[], float] = time.monotonic) -> None:
        self._emit, self._clock = emit, clock
        self._lock = threading.RLock()  # a signal handler may log while its thread does
        self._kinds: dict[str, _Kind] = {}
        self._budget, self._budget_s = float(KINDS), clock()

    def __call__(self, text: str) -> None:
        text = one_line(text)
        with self._lock:
            self.tick()
            now_s, name = self._clock(), kind_of(text)
            if name not in self._kinds:
                if self._take_budget(now_s):
                    self._kinds[name] = _Kind(text, now_s, now_s, at_once=AT_ONCE - 1)
                    self._emit(text)
                    return
                name = ""  # the kind of all lines beyond the budget
            kind = self._kinds.setdefault(name, _Kind(text, now_s, now_s))
            kind.newest, kind.newest_s = text, now_s
            if kind.at_once:
                kind.at_once -= 1
                self._emit(text)
            else:
                kind.count += 1

    @property
    def due_in_s(self) -> float:
        """Seconds until ``tick`` has something to print; infinite when no line waits."""
        with self._lock:
            ends_s = [kind.end_s for kind in self._kinds.values() if kind.count]
            return max(min(ends_s, default=math.inf) - self._clock(), 0.0)

    def tick(self) -> None:
        """Print the counts of the windows that have ended."""
        with self._lock:
            now_s = self._clock()
            over = [name for name, kind in self._kinds.items() if now_s >= kind.end_s]
            for name in sorted(over, key=lambda name: self._kinds[name].newest_s):
                self._end_window(name, now_s)

    def flush(self) -> None:
        """Print every count now; for the end of the process."""
        with self._lock:
            now_s = self._clock()
            for kind in sorted(self._kinds.values(), key=lambda kind: kind.newest_s):
                self._print(kind, now_s)

    def _end_window(self, name: str, now_s: float) -> None:
        kind = self._kinds[name]
        if not kind.count:
            del self._kinds[name]  # no line in a whole window: the next one is printed at once
            return
        self._print(kind, now_s)
        kind.window_s = min(2 * kind.window_s, LONGEST_WINDOW_S)

    def _print(self, kind: _Kind, now_s: float) -> None:
        if kind.count:
            alike = "like it" if kind is not self._kinds.get("") else "lines of many kinds"
            span_s = max(now_s - kind.began_s, 1.0)
            age_s = now_s - kind.newest_s
            age = f", this one {age_s:.0f} s ago" if age_s > _SHOW_AGE_S else ""
            self._emit(f"{kind.newest} ({kind.count} more {alike} in the last {span_s:.0f} s{age})")
        kind.began_s, kind.count = now_s, 0

    def _take_budget(self, now_s: float) -> bool:
        self._budget = min(self._budget + (now_s - self._budget_s) * KINDS_PER_S, float(KINDS))
        self._budget_s = now_s
        if self._budget < 1.0:
            return False
        self._budget -= 1.0
        return True
