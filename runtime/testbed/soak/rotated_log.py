"""Rotates the log of a running daemon as logrotate does, and hands over every line that was written, once."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path


class RotatedLog:
    """Owns the file that was moved away last, until the daemon has opened a new one in its place."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.rotations = 0
        self._moved = path.with_suffix(path.suffix + ".1")

    def rotate(self, reopen: Callable[[], None]) -> Iterator[bytes]:
        """Move the file away and have it reopened; yields the lines of the one that was moved away before, which is
        complete by now. A daemon that has not reopened its log yet, because it stands still or the disk is full, is
        asked again."""
        if self._moved.exists():
            if not self.path.exists():
                reopen()
                return
            yield from self._taken(self._moved)
        if self.path.exists():
            self.path.rename(self._moved)
            self.rotations += 1
            reopen()

    def rest(self) -> Iterator[bytes]:
        """What is left when the daemon has ended."""
        yield from self._taken(self._moved)
        yield from self._taken(self.path)

    def _taken(self, path: Path) -> Iterator[bytes]:
        if path.exists():
            lines = path.read_bytes().splitlines()
            path.unlink()
            yield from lines
