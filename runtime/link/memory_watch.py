"""Notices a message without an end: a peer may send parts for ever, and ZeroMQ keeps them all in memory."""

from __future__ import annotations

import resource
from collections.abc import Callable
from pathlib import Path

_STATM = Path("/proc/self/statm")
#: Tolerated growth while no message ends; what the program itself loads in that time is less.
MOST_GROWTH_BYTES = 128 << 20
_LOOK_EVERY_S = 0.02


class MemoryWatch:
    """Owns how large the process was when a message last ended."""

    def __init__(self, clock: Callable[[], float], most_growth_bytes: int = MOST_GROWTH_BYTES) -> None:
        self._clock, self._most_growth_bytes = clock, most_growth_bytes
        self._page_bytes = resource.getpagesize()
        self._base_bytes = self._resident_bytes()
        self._look_s = clock()

    def reset(self) -> None:
        """A message ended, or a connection was opened."""
        self._base_bytes = 0

    def is_filling(self) -> bool:
        """Whether the process has grown too much since then. Looks at most every 20 ms."""
        now_s = self._clock()
        if now_s < self._look_s:
            return False
        self._look_s = now_s + _LOOK_EVERY_S
        resident_bytes = self._resident_bytes()
        self._base_bytes = self._base_bytes or resident_bytes
        return resident_bytes > self._base_bytes + self._most_growth_bytes

    def _resident_bytes(self) -> int:
        """0 where the system does not report it."""
        try:
            return int(_STATM.read_bytes().split()[1]) * self._page_bytes
        except (OSError, IndexError, ValueError):
            return 0
