"""A log line per minute that says where a device's frames were answered."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable

from controller.records import NO_PAYLOAD, Outcome, Status

EVERY_S = 60.0
#: Always in the line; other endings only when they occur.
_ANSWERED = ("device", "split", "MEC", "fallback")


def answered_where(outcome: Outcome) -> str:
    """Where a frame that ended as decided was answered (device, split or MEC); its status for any other."""
    if outcome.status is not Status.OK or outcome.decision is None:
        return outcome.status.value
    if outcome.decision.payload == NO_PAYLOAD:
        return "device"
    return "split" if outcome.decision.partition_point else "MEC"


class StatusLine:
    """Owns the counts since the last line."""

    def __init__(self, log: Callable[[str], None], clock: Callable[[], float] = time.monotonic) -> None:
        self._log, self._clock = log, clock
        self._counts: Counter[str] = Counter()
        self._began_s = clock()

    def add(self, outcome: Outcome) -> None:
        """Count an outcome; logs a line when a minute has passed since the last one."""
        self._counts[answered_where(outcome)] += 1
        now_s = self._clock()
        if now_s - self._began_s >= EVERY_S:
            self._log(self._text(now_s - self._began_s))
            self._counts.clear()
            self._began_s = now_s

    def _text(self, lasted_s: float) -> str:
        frames = self._counts.total()
        names = [*_ANSWERED, *sorted(name for name in self._counts if name not in _ANSWERED)]
        shares = ", ".join(f"{name} {self._counts[name] / frames:.0%}" for name in names)
        return f"{frames} frames in {lasted_s:.0f} s: {shares}"
