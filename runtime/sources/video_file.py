"""Read a video file: every picture with its time, and a count of damaged frames."""

from __future__ import annotations

import math
import os
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import Any

import cv2

from controller.errors import FailureError
from runtime.files.masking import shown
from runtime.sources.capture import open_capture
from runtime.sources.shots import Shot, Watch

#: A longer step between two pictures is a fault of the clock, not a pause.
LONGEST_STEP_S = 60.0
#: Frame rates beyond this are no frame rates: some containers state the tick of their clock.
MOST_FPS = 1000.0
#: Steps this close to the nominal one are regular; below this share of them the rate varies on purpose.
STEP_TOLERANCE = 0.25
REGULAR_FRAC = 2 / 3
#: A file that misses no more of its frames than this is whole: some containers only estimate their number.
ESTIMATE_FRAC = 0.01


class VideoFile:
    """Every picture that can be decoded; its place counts those before it."""

    live = False
    once = False
    open_wait_s = 2.0

    def __init__(self, path: Path, name: str | None = None) -> None:
        self.name = name or shown(path)
        try:
            with path.open("rb") as file:
                self._counted = _states_its_frames(file.read(12))
            self._target = _unmistakable(path)
        except OSError as error:
            raise FailureError(f"source {self.name} cannot be read: {error.strerror or error}") from None
        capture = self._open()
        self.fps: float | None = frame_rate(capture)
        capture.release()

    def shots(self, first: int, watch: Watch) -> Generator[Shot, None, None]:
        capture = self._open()
        tally = Tally(capture)
        try:
            for place, at_s in enumerate(grabbed(capture, tally, watch)):
                if place >= first and (read := capture.retrieve())[0]:
                    yield Shot(read[1], place, at_s)
            if not watch.stopped:
                tally.end(self._counted)
        finally:
            capture.release()
            tally.report(self.name, watch)

    def _open(self) -> Any:
        capture = open_capture(self._target)
        if capture is None:
            raise FailureError(
                f"source {self.name} cannot be opened; expected a video file in a format that OpenCV can decode"
            )
        return capture


def _unmistakable(path: Path) -> str:
    """A name that the library takes as it is meant."""
    try:
        os.fsencode(path).decode("utf-8")
    except UnicodeDecodeError:  # it takes no such name at all; the descriptor stays open as long as the process
        return f"/proc/self/fd/{os.open(path, os.O_RDONLY)}"
    return os.path.abspath(path)  # else cam1:yard.mp4 is a URL of the protocol cam1


def _states_its_frames(head: bytes) -> bool:
    """Whether the container says how many frames it has (MP4, AVI); others let it be estimated from their length."""
    return head[4:8] == b"ftyp" or head.startswith(b"RIFF")


def frame_rate(capture: Any) -> float | None:
    fps = capture.get(cv2.CAP_PROP_FPS)
    return float(fps) if 0 < fps <= MOST_FPS else None


def grabbed(capture: Any, tally: Tally, watch: Watch) -> Iterator[float]:
    """The time of each picture, once it is decoded."""
    clock = _FileClock(1.0 / (tally.fps or 10.0))
    while not watch.stopped and capture.grab():
        watch.heard()
        file_s = capture.get(cv2.CAP_PROP_POS_MSEC) / 1e3
        tally.add(file_s)
        yield clock.mended_s(file_s)


class _FileClock:
    """Makes the times of a file ascend, also those that stand still, jump or begin anew."""

    def __init__(self, step_s: float) -> None:
        self._step_s, self._last_s, self._offset_s = step_s, -step_s, 0.0

    def mended_s(self, file_s: float) -> float:
        next_s = self._last_s + self._step_s
        if not abs(file_s + self._offset_s - self._last_s) <= LONGEST_STEP_S:
            self._offset_s = next_s - file_s if math.isfinite(file_s) else 0.0
        at_s = file_s + self._offset_s
        self._last_s = at_s if at_s > self._last_s else next_s
        return self._last_s


class Tally:
    """Owns the times of the decoded frames of one pass; says how many are missing between them."""

    def __init__(self, capture: Any) -> None:
        self.fps = frame_rate(capture)
        stated = capture.get(cv2.CAP_PROP_FRAME_COUNT)
        self._stated = int(stated) if 0 < stated < 1e9 else 0
        self._decoded = self._regular = 0
        self._first_s, self._last_s, self._newest_s = math.nan, math.nan, -math.inf
        self.missing = 0

    def add(self, at_s: float) -> None:
        if self._decoded == 0:
            self._first_s = at_s
        elif self.fps is not None:
            self._regular += abs((at_s - self._last_s) * self.fps - 1) <= STEP_TOLERANCE
        self._last_s, self._newest_s = at_s, max(at_s, self._newest_s)
        self._decoded += 1
        self.missing = self._holes()

    def end(self, counted: bool) -> None:
        """The file gives no more; ``counted``: the number that it states is exact."""
        short = self._stated - self._decoded
        if (counted or self._is_regular) and short > max(1, ESTIMATE_FRAC * self._stated):
            self.missing = short
        elif self._stated and short <= 1:
            self.missing = 0  # what looked like holes is a rate that varies

    @property
    def _is_regular(self) -> bool:
        return self.fps is not None and self._regular >= REGULAR_FRAC * (self._decoded - 1)

    def _holes(self) -> int:
        if not self._is_regular or self.fps is None or not math.isfinite(self._newest_s - self._first_s):
            return 0
        return max(round((self._newest_s - self._first_s) * self.fps) + 1 - self._decoded, 0)

    def report(self, name: str, watch: Watch) -> None:
        watch.missing = self.missing
        if self.missing:
            all_ = self._decoded + self.missing
            watch.log(f"source {name}: {self.missing} of {all_} frames are missing; the file is damaged or cut off")
