"""Read a camera or a stream, and reopen it when it is lost or not available yet."""

from __future__ import annotations

import math
from collections.abc import Generator, Iterator
from typing import Any

import cv2

from controller.errors import FailureError
from runtime.files.masking import shown
from runtime.sources.capture import CAMERA_WAIT_S, open_capture, pictures
from runtime.sources.shots import Shot, Watch

FIRST_PAUSE_S = 0.25
LONGEST_PAUSE_S = 1.0
#: A source that was available for this long is reopened without a pause when it is lost.
STEADY_S = 10.0


class Camera:
    """A camera of this machine, given by index or device file, or a stream given by URL."""

    live = True
    once = True
    fps: float | None = None

    def __init__(self, target: int | str) -> None:
        self.name = f"camera {target}" if isinstance(target, int) else shown(target)
        self._target = target
        self.open_wait_s = 2 * CAMERA_WAIT_S

    def shots(self, first: int, watch: Watch) -> Generator[Shot, None, None]:
        """Pictures in order of arrival. FailureError when the source is away for ``Watch.retry_s`` seconds."""
        status = _Availability(self.name, watch)
        while not watch.stopped:
            capture = open_capture(self._target)
            if capture is None:
                status.failed("cannot be opened")
            else:
                watch.opened = True
                try:
                    yield from status.pictures(capture)
                finally:
                    capture.release()
                if status.complete or watch.stopped:
                    return
                status.failed("gives no more pictures")
            watch.pause(status.pause_s)


class _Availability:
    """Tracks since when the source has been available or away, logs changes, and sets the pause between attempts."""

    def __init__(self, name: str, watch: Watch) -> None:
        self._name, self._watch = name, watch
        self._available = self._was_available = False
        self._loss_logged = False
        self._began_s = self._last_s = watch.clock()
        self.pause_s = 0.0
        self.complete = False  # a recording behind a URL was read to its end

    def pictures(self, capture: Any) -> Iterator[Shot]:
        stated, read = capture.get(cv2.CAP_PROP_FRAME_COUNT), 0
        for image in pictures(capture):
            self._arrived()
            read += 1
            yield Shot(image, read)
        self.complete = 0 < stated <= read

    def _arrived(self) -> None:
        now_s = self._watch.clock()
        if not self._available:
            self._returned(now_s)
        self._last_s = now_s
        self._watch.heard()

    def _returned(self, now_s: float) -> None:
        if self._loss_logged:
            away_s = now_s - self._last_s
            self._watch.away_s += away_s
            state = "back" if self._was_available else "available"
            self._watch.log(f"source {self._name} is {state} after {away_s:.1f} s")
        self._available, self._was_available, self._loss_logged, self._began_s = True, True, False, now_s

    def failed(self, why: str) -> None:
        """Note a failed attempt; FailureError when attempts have failed for ``Watch.retry_s`` seconds."""
        now_s = self._watch.clock()
        if self._available and now_s - self._began_s > STEADY_S:
            self.pause_s = 0.0
        self._watch.losses += self._available
        self._available = False
        if now_s - self._last_s >= self._watch.retry_s:
            self._give_up(why, now_s)
        self.pause_s = min(max(2 * self.pause_s, FIRST_PAUSE_S), LONGEST_PAUSE_S)
        if not self._loss_logged:
            self._loss_logged = True
            how_long = "" if self._watch.retry_s == math.inf else f" for {self._watch.retry_s:g} s"
            self._watch.log(f"source {self._name} {why}; trying again{how_long} (--source-retry or retry_s)")

    def _give_up(self, why: str, now_s: float) -> None:
        if not self._loss_logged:
            raise FailureError(f"source {self._name} {why}")
        self._watch.away_s += now_s - self._last_s
        tried = f"tried for {self._watch.retry_s:g} s (--source-retry or retry_s)"
        raise FailureError(f"source {self._name} {why}; {tried}")
