"""Which frame is next? A source on a clock, and the bounded queue before the device.

Frame i is captured at i / fps after the start and waits; when the queue is full the oldest waiting frame is
dropped, for it has the least time left. A closed loop captures the next frame when the one before was answered.
"""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Frame:
    """One frame that wants an answer."""

    index: int
    source_index: int
    captured_s: float


class FrameSource:
    """Owns the frames that wait, and when the next one is captured."""

    def __init__(
        self, frames: int, interval_s: float, first_sample: int, samples: int, queue_limit: int, closed_loop: bool
    ) -> None:
        self._frames = frames
        self._interval_s = interval_s
        self._first_sample = first_sample
        self._samples = samples
        self._queue_limit = queue_limit
        self._closed_loop = closed_loop
        self._start_s = math.inf  # nothing is captured before start()
        self._next_index = 0
        self.waiting: deque[Frame] = deque()

    def start(self, now_s: float) -> None:
        """The first frame is captured now."""
        self._start_s = now_s

    def stop(self) -> None:
        """Capture nothing more; what waits is still served."""
        self._frames = self._next_index

    @property
    def exhausted(self) -> bool:
        return self._next_index >= self._frames and not self.waiting

    @property
    def next_capture_s(self) -> float:
        """When ``offer`` has something to do by the clock."""
        if self._next_index >= self._frames or self._closed_loop:
            return math.inf
        return self._start_s + self._next_index * self._interval_s

    def offer(self, now_s: float) -> list[Frame]:
        """Capture what the clock says; the frames that were dropped for it."""
        dropped = []
        while (captured_s := self.next_capture_s) <= now_s:
            self._capture(captured_s)
            if len(self.waiting) > self._queue_limit:
                dropped.append(self.waiting.popleft())
        return dropped

    def offer_answered(self, now_s: float) -> None:
        """Everything captured so far was answered: a closed loop goes on."""
        if self._closed_loop and not self.waiting and self._next_index < self._frames:
            self._capture(now_s)

    def _capture(self, captured_s: float) -> None:
        sample = (self._first_sample + self._next_index) % self._samples
        self.waiting.append(Frame(self._next_index, sample, captured_s))
        self._next_index += 1
