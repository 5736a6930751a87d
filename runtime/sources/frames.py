"""The frames that a device decides next: a source on a clock, and the bounded queue behind it.

Frame i is captured at i / fps after the start and waits; when the queue is full the oldest waiting frame is
dropped, for it has the least time left. A closed loop captures the next frame when the one before was answered.
Pictures of other sources come when they come: a feed says which have. A frame that is answered at its capture, because
an earlier answer stands for it, does not wait.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, slots=True)
class Frame:
    """One frame that wants an answer."""

    index: int
    source_index: int
    captured_s: float


class Feed(Protocol):
    """Pictures that come when they come, numbered from the first sample on (see ``runtime.sources.samples``)."""

    def start(self, now_s: float, interval_s: float) -> None:
        """Capture from now on, at this interval; 0 when a closed loop asks for each picture."""
        ...

    @property
    def next_look_s(self) -> float:
        """When to look for pictures."""
        ...

    def take(self, now_s: float, most: int) -> list[float]:
        """When those were captured that came since the last call, at most so many; never blocks."""
        ...

    @property
    def ended(self) -> bool:
        """Whether nothing comes any more."""
        ...


class FrameSource:
    """Owns the frames that wait, and when the next one is captured."""

    def __init__(
        self,
        frames: int,
        interval_s: float,
        first_sample: int,
        samples: int,
        queue_limit: int,
        closed_loop: bool,
        feed: Feed | None = None,
        answer: Callable[[Frame], bool] = lambda _: False,
    ) -> None:
        """``answer`` is called with each frame that is captured, and says whether it was answered at once."""
        self._frames = frames
        self._interval_s = interval_s
        self._first_sample = first_sample
        self._samples = samples
        self._queue_limit = queue_limit
        self._closed_loop = closed_loop
        self._feed = feed  # None: the workload's samples, which are there at any time
        self._start_s = math.inf  # nothing is captured before start()
        self._next_index = 0
        self._answer = answer
        self.waiting: deque[Frame] = deque()

    def start(self, now_s: float) -> None:
        """The first frame is captured now."""
        self._start_s = now_s
        if self._feed is not None:
            self._feed.start(now_s, 0.0 if self._closed_loop else self._interval_s)

    def stop(self) -> None:
        """Capture nothing more; what waits is still served."""
        self._frames = self._next_index

    def answer_waiting(self) -> None:
        """Ask again for each frame that waits whether it is answered at once."""
        self.waiting = deque(frame for frame in self.waiting if not self._answer(frame))

    @property
    def exhausted(self) -> bool:
        return self._next_index >= self._frames and not self.waiting

    @property
    def next_capture_s(self) -> float:
        """When ``offer`` has something to do by the clock."""
        if self._next_index >= self._frames:
            return math.inf
        if self._feed is not None:
            return self._feed.next_look_s
        if self._closed_loop:
            return math.inf
        return self._start_s + self._next_index * self._interval_s

    def offer(self, now_s: float) -> list[Frame]:
        """Capture what the clock says; the frames that were dropped for it."""
        dropped = []
        for captured_s in self._captures(now_s):
            self._capture(captured_s)
            if len(self.waiting) > self._queue_limit:
                dropped.append(self.waiting.popleft())
        return dropped

    def _captures(self, now_s: float) -> Iterator[float]:
        """Times of the captures that are due."""
        if self._feed is not None:
            yield from self._fed(now_s, 0 if self._closed_loop else self._frames - self._next_index)
            return
        while (captured_s := self.next_capture_s) <= now_s:
            yield captured_s

    def _fed(self, now_s: float, most: int) -> list[float]:
        assert self._feed is not None
        captures = self._feed.take(now_s, most)
        if self._feed.ended:
            self._frames = self._next_index + len(captures)
        return captures

    def offer_answered(self, now_s: float) -> None:
        """Everything captured so far was answered: a closed loop goes on, to the next frame that waits."""
        while self._closed_loop and not self.waiting and self._next_index < self._frames:
            captures = [now_s] if self._feed is None else self._fed(now_s, 1)
            for captured_s in captures:
                self._capture(captured_s)
            if not captures:
                return

    def _capture(self, captured_s: float) -> None:
        sample = (self._first_sample + self._next_index) % self._samples
        frame = Frame(self._next_index, sample, captured_s)
        self._next_index += 1
        if not self._answer(frame):
            self.waiting.append(frame)
