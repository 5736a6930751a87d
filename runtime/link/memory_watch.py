"""Detects endless messages by the growth of the process: ZeroMQ keeps all parts of a message in memory."""

from __future__ import annotations

import resource
from collections.abc import Callable
from pathlib import Path

_STATM = Path("/proc/self/statm")
#: Tolerated growth while no message ends; what the program itself loads in that time is less.
MOST_GROWTH_BYTES = 128 << 20
_LOOK_EVERY_S = 0.02


class MemoryWatch:
    """Owns the size of the process when a message last ended."""

    def __init__(self, clock: Callable[[], float], most_growth_bytes: int = MOST_GROWTH_BYTES) -> None:
        self._clock, self._most_growth_bytes = clock, most_growth_bytes
        self._page_bytes = resource.getpagesize()
        self._base_bytes = self._resident_bytes()
        self._look_s = clock()

    def reset(self) -> None:
        """A message ended, or a connection was opened."""
        self._base_bytes = 0

    def is_filling(self) -> bool:
        """Whether the process has grown too much since the last ``reset``. Measures at most every 20 ms."""
        now_s = self._clock()
        if now_s < self._look_s:
            return False
        self._look_s = now_s + _LOOK_EVERY_S
        resident_bytes = self._resident_bytes()
        self._base_bytes = self._base_bytes or resident_bytes
        return resident_bytes > self._base_bytes + self._most_growth_bytes

    def _resident_bytes(self) -> int:
        """Size of the process in memory; 0 if the system does not report it."""
        try:
            return int(_STATM.read_bytes().split()[1]) * self._page_bytes
        except (OSError, IndexError, ValueError):
            return 0
