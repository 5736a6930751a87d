"""The steps of an adoption: a progress bar and the time of each."""

from __future__ import annotations

import resource
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from runtime.adoption.report import Step

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

#: Called with what is done and with all that is to do.
Advance = Callable[[float, float], None]


class Steps:
    """Owns the times of the steps so far, and shows a bar for each, or a line where there is no terminal."""

    def __init__(self, progress: Progress) -> None:
        self.progress = progress
        self.done: list[Step] = []

    @contextmanager
    def step(self, name: str) -> Iterator[Advance]:
        """A step that shows its progress in a bar; the bar has no end until it is told."""
        self._say(name)
        bar = self.progress.add_task(name, total=None)
        begin_s = time.monotonic()

        def advance(done: float, total: float) -> None:
            self.progress.update(bar, completed=done, total=total)

        yield advance
        taken_s = time.monotonic() - begin_s
        self.done.append(Step(name, round(taken_s, 1)))
        self.progress.update(bar, completed=1, total=1)

    def parts(self) -> Callable[[str, float], None]:
        """Called with a part of the current step and the share of it that is done: a bar for each part."""
        bars: dict[str, TaskID] = {}

        def advance(name: str, done: float) -> None:
            if name not in bars:
                self._say(f"  {name}")
                bars[name] = self.progress.add_task(f"  {name}", total=100)
            self.progress.update(bars[name], completed=round(100 * done))

        return advance

    def _say(self, what: str) -> None:
        console = self.progress.console
        if not console.is_terminal:
            console.print(f"adopt: {what}", highlight=False, soft_wrap=True)


def peak_memory_bytes(children: int) -> int:
    """Upper bound of the memory that this process and so many children held at one time: the sum of their peaks."""
    own, child = (resource.getrusage(who).ru_maxrss for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return int(own + children * child) * 1024  # Linux counts in KiB
