"""The capture of frames, and the bounded queue of frames that wait for a decision.

Frame i is captured i / fps after the start. When the queue is full, the oldest waiting frame is dropped, because it
has the least time left. A closed loop captures the next frame when the previous one was answered. A source with its
own timing (a camera, a pipe) reports captures through a ``Feed``. A frame that an earlier answer covers is answered
at its capture and does not wait.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, slots=True)
class Frame:
    """One captured frame."""

    index: int
    source_index: int
    captured_s: float


class Feed(Protocol):
    """A source with its own timing, numbered from the first sample (see ``runtime.sources.footage_source``)."""

    def start(self, now_s: float, interval_s: float) -> None:
        """Begin to capture, at this interval in seconds; 0 in a closed loop, which asks for each picture."""
        ...

    @property
    def next_look_s(self) -> float:
        """When to call ``take`` next."""
        ...

    def take(self, now_s: float, limit: int) -> list[float]:
        """Capture times of at most ``limit`` frames that arrived since the last call; none with 0. Never blocks."""
        ...

    @property
    def ended(self) -> bool:
        """Whether no more frames will come."""
        ...


class FrameSource:
    """Owns the waiting frames and the time of the next capture."""

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
        """``frames`` is the number of frames to capture, ``samples`` the number of pictures before the source repeats.

        ``feed`` is None for the workload's samples, which are available at any time. ``answer`` is called with each
        captured frame and returns whether it was answered at once.
        """
        self._frames = frames
        self._interval_s = interval_s
        self._first_sample = first_sample
        self._samples = samples
        self._queue_limit = queue_limit
        self._closed_loop = closed_loop
        self._feed = feed
        self._start_s = math.inf  # set by start()
        self._next_index = 0
        self._answer = answer
        self.waiting: deque[Frame] = deque()

    def start(self, now_s: float) -> None:
        """Capture the first frame now."""
        self._start_s = now_s
        if self._feed is not None:
            self._feed.start(now_s, 0.0 if self._closed_loop else self._interval_s)

    def stop(self) -> None:
        """Capture no more frames; waiting frames are still served."""
        self._frames = self._next_index

    def answer_waiting(self) -> None:
        """Remove the waiting frames that ``answer`` can answer now."""
        self.waiting = deque(frame for frame in self.waiting if not self._answer(frame))

    @property
    def exhausted(self) -> bool:
        """Whether all frames were captured and none waits."""
        return self._next_index >= self._frames and not self.waiting

    @property
    def next_capture_s(self) -> float:
        """When to call ``offer`` next; infinite when no capture is scheduled."""
        if self._next_index >= self._frames:
            return math.inf
        if self._feed is not None:
            return self._feed.next_look_s
        if self._closed_loop:
            return math.inf
        return self._start_s + self._next_index * self._interval_s

    def offer(self, now_s: float) -> list[Frame]:
        """Capture the frames that are due; returns the waiting frames that were dropped for them."""
        dropped = []
        for captured_s in self._captures(now_s):
            self._capture(captured_s)
            if len(self.waiting) > self._queue_limit:
                dropped.append(self.waiting.popleft())
        return dropped

    def _captures(self, now_s: float) -> Iterator[float]:
        """Times of the captures that are due."""
        if self._feed is not None:
            yield from self._from_feed(now_s, 0 if self._closed_loop else self._frames - self._next_index)
            return
        while (captured_s := self.next_capture_s) <= now_s:
            yield captured_s

    def _from_feed(self, now_s: float, limit: int) -> list[float]:
        assert self._feed is not None
        captures = self._feed.take(now_s, limit)
        if self._feed.ended:
            self._frames = self._next_index + len(captures)
        return captures

    def offer_answered(self, now_s: float) -> None:
        """In a closed loop, capture until a frame waits. Called when every captured frame was answered."""
        while self._closed_loop and not self.waiting and self._next_index < self._frames:
            captures = [now_s] if self._feed is None else self._from_feed(now_s, 1)
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
