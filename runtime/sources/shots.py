"""The interface between a reader of pictures and the run: ``Footage``, ``Shot`` and ``Watch``.

A ``Footage`` is read in a thread (``runtime.sources.footage_source``). It yields ``Shot``s and reports problems to the
``Watch``: unreadable pictures, missing frames, a lost camera. Every wait in a footage ends soon after ``Watch.stop``;
only a library call can take longer.
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

#: Number of unreadable pictures that are logged one by one; the rest are only counted. The log folds repeated lines,
#: but these lines differ in the file name, and a folder may have thousands.
MOST_LINES = 5


@dataclass(frozen=True, slots=True)
class Shot:
    """One picture as OpenCV decodes it: (h, w, 3) blue-green-red, of any size."""

    image: Image
    index: int  # in the source, from 0
    at_s: float | None = None  # presentation time in the file; None if the source has no times


class Watch:
    """Owns the state of one reading: counts, last sign of life, and the stop flag.

    The reading thread writes the state; the run reads it and calls ``stop``.
    """

    def __init__(self, retry_s: float = 0.0, log: Log = lambda _: None, clock: Clock = time.perf_counter) -> None:
        """``retry_s``: how long a live source without pictures is reopened before the run ends."""
        self.retry_s, self.log, self.clock = retry_s, log, clock
        self.heard_s = clock()  # last sign of life
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
        """Sleep; ``stop`` ends the sleep early."""
        self._stopped.wait(seconds)

    def heard(self) -> None:
        """Note a sign of life."""
        self.heard_s = self.clock()

    def skip(self, line: str) -> None:
        """Count an unreadable picture, and log the line if few were logged before."""
        self.heard()
        self.unreadable += 1
        if self.unreadable <= MOST_LINES:
            self.log(line)
        elif self.unreadable == MOST_LINES + 1:
            self.log("further unreadable pictures are only counted")

    def sum_up(self, name: str) -> None:
        """Log the number of unreadable pictures if not all of them were logged."""
        if self.unreadable > MOST_LINES:
            self.log(f"source {name}: {self.unreadable} pictures could not be read and were skipped")

    def notes(self) -> dict[str, float]:
        """Counts for the summary."""
        return {
            "unreadable": self.unreadable,
            "missing": self.missing,
            "losses": self.losses,
            "away_s": round(self.away_s, 3),
        }


class Footage(Protocol):
    """A reader of pictures in order."""

    name: str  # printable: without credentials or control characters
    live: bool  # a camera: pictures that nobody takes are lost
    once: bool  # a second reading is not possible
    fps: float | None  # frame rate that the file states; None for a source without times
    open_wait_s: float  # longest wait for the first picture before the run starts

    def shots(self, first: int, watch: Watch) -> Generator[Shot, None, None]:
        """Pictures from index ``first`` on. FailureError when the source ends too early."""
        ...
