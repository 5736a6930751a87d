"""What does a source hand over, and what does its reader share with the run?

A ``Footage`` is read in a thread (``runtime.sources.samples``). It yields ``Shot``s and tells the ``Watch`` what else
happened:
pictures that could not be read, frames that are missing, a camera that was lost. Every wait in a footage ends soon
after ``Watch.stop``; only a call into a library can last longer.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Generator
from dataclasses import dataclass
from typing import Protocol

from runtime.workloads.types import Image

Log = Callable[[str], None]
Clock = Callable[[], float]

#: Unreadable pictures that get a line of their own; more are only counted. The log counts lines that repeat, but these
#: differ in the names of files, and a folder has thousands.
MOST_LINES = 5


@dataclass(frozen=True, slots=True)
class Shot:
    """One picture, as OpenCV gives it: blue-green-red, of any size."""

    image: Image
    place: int  # its number in the source, for people
    at_s: float | None = None  # when it is shown by the file's own clock; None without one


class Watch:
    """Owns what is known of a source while it is read. The reading thread writes, the run reads and stops."""

    def __init__(self, retry_s: float = 0.0, log: Log = lambda _: None, clock: Clock = time.perf_counter) -> None:
        """``retry_s``: how long without a picture a live source is tried again."""
        self.retry_s, self.log, self.clock = retry_s, log, clock
        self.heard_s = clock()  # when the source last gave a sign of life
        self.opened = False
        self.unreadable = 0
        self.missing = 0
        self.losses = 0
        self.away_s = 0.0
        self._stopped = threading.Event()

    @property
    def stopped(self) -> bool:
        return self._stopped.is_set()

    def stop(self) -> None:
        self._stopped.set()

    def pause(self, seconds: float) -> None:
        """Wait, but not longer than until the stop."""
        self._stopped.wait(seconds)

    def heard(self) -> None:
        self.heard_s = self.clock()

    def skip(self, line: str) -> None:
        """A picture cannot be read: say so, unless that was said often enough, and count it."""
        self.heard()
        self.unreadable += 1
        if self.unreadable <= MOST_LINES:
            self.log(line)
        elif self.unreadable == MOST_LINES + 1:
            self.log("further unreadable pictures are only counted")

    def sum_up(self, name: str) -> None:
        """The source is over."""
        if self.unreadable > MOST_LINES:
            self.log(f"source {name}: {self.unreadable} pictures could not be read and were skipped")

    def notes(self) -> dict[str, float]:
        """What a summary should say of the source."""
        return {
            "unreadable": self.unreadable,
            "missing": self.missing,
            "losses": self.losses,
            "away_s": round(self.away_s, 3),
        }


class Footage(Protocol):
    """Something that gives pictures in order."""

    name: str  # may be printed
    live: bool  # pictures pass whether or not they are taken
    once: bool  # pictures cannot be read a second time
    fps: float | None  # of the file's own times; None without them
    open_wait_s: float  # how long opening may take before the run goes on without it

    def shots(self, first: int, watch: Watch) -> Generator[Shot, None, None]:
        """Pictures from that number on. FailureError when the source ends too early."""
        ...
