"""Read a camera or a stream. If it is lost, or not there yet, it is opened again."""

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
#: A stream that has lasted so long is tried again at once when it is lost.
STEADY_S = 10.0


class Camera:
    """A camera of this machine, by its index or its device file, or a stream by its URL."""

    live = True
    once = True
    fps: float | None = None

    def __init__(self, target: int | str) -> None:
        self.name = f"camera {target}" if isinstance(target, int) else shown(target)
        self._target = target
        self.open_wait_s = 2 * CAMERA_WAIT_S

    def shots(self, first: int, watch: Watch) -> Generator[Shot, None, None]:
        """Pictures, across all losses that last less than ``Watch.retry_s``."""
        spell = _Spell(self.name, watch)
        while not watch.stopped:
            capture = open_capture(self._target)
            if capture is None:
                spell.failed("cannot be opened")
            else:
                watch.opened = True
                try:
                    yield from spell.pictures(capture)
                finally:
                    capture.release()
                if spell.complete or watch.stopped:
                    return
                spell.failed("gives no more pictures")
            watch.pause(spell.pause_s)


class _Spell:
    """Owns how long the source has been there, or away, and what was said of it."""

    def __init__(self, name: str, watch: Watch) -> None:
        self._name, self._watch = name, watch
        self._there = self._ever = False
        self._said = False
        self._began_s = self._last_s = watch.clock()
        self.pause_s = 0.0
        self.complete = False  # a recording behind a URL was read to its end

    def pictures(self, capture: Any) -> Iterator[Shot]:
        stated, given = capture.get(cv2.CAP_PROP_FRAME_COUNT), 0
        for image in pictures(capture):
            self._arrived()
            given += 1
            yield Shot(image, given)
        self.complete = 0 < stated <= given

    def _arrived(self) -> None:
        now_s = self._watch.clock()
        if not self._there:
            self._is_back(now_s)
        self._last_s = now_s
        self._watch.heard()

    def _is_back(self, now_s: float) -> None:
        if self._said:
            away_s = now_s - self._last_s
            self._watch.away_s += away_s
            self._watch.log(f"source {self._name} is {'back' if self._ever else 'there'} after {away_s:.1f} s")
        self._there, self._ever, self._said, self._began_s = True, True, False, now_s

    def failed(self, why: str) -> None:
        """Note that there is nothing now; FailureError when it was tried for long enough."""
        now_s = self._watch.clock()
        if self._there and now_s - self._began_s > STEADY_S:
            self.pause_s = 0.0
        self._watch.losses += self._there
        self._there = False
        if now_s - self._last_s >= self._watch.retry_s:
            self._give_up(why, now_s)
        self.pause_s = min(max(2 * self.pause_s, FIRST_PAUSE_S), LONGEST_PAUSE_S)
        if not self._said:
            self._said = True
            how_long = "" if self._watch.retry_s == math.inf else f" for {self._watch.retry_s:g} s"
            self._watch.log(f"source {self._name} {why}; trying again{how_long} (--source-retry)")

    def _give_up(self, why: str, now_s: float) -> None:
        if not self._said:
            raise FailureError(f"source {self._name} {why}")
        self._watch.away_s += now_s - self._last_s
        raise FailureError(f"source {self._name} {why}; tried for {self._watch.retry_s:g} s (--source-retry)")
