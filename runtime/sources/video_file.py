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

#: A longer step between two pictures is taken for a broken timestamp, not for a pause.
LONGEST_STEP_S = 60.0
#: A higher frame rate is ignored: some containers state the tick of their clock instead.
MOST_FPS = 1000.0
#: A step within this tolerance of 1 / fps is regular. If fewer than REGULAR_FRAC of the steps are regular, the frame
#: rate varies on purpose, and gaps are not counted as missing frames.
STEP_TOLERANCE = 0.25
REGULAR_FRAC = 2 / 3
#: A file that lacks at most this share of its stated frames is complete: some containers only estimate the number.
ESTIMATE_FRAC = 0.01


class VideoFile:
    """A video file. Yields every picture that can be decoded; its index is the number of pictures decoded before it."""

    live = False
    once = False
    open_wait_s = 2.0

    def __init__(self, path: Path, name: str | None = None) -> None:
        self.name = name or shown(path)
        try:
            with path.open("rb") as file:
                self._counted = _states_its_frames(file.read(12))
            self._target = _path_for_ffmpeg(path)
        except OSError as error:
            raise FailureError(f"source {self.name} cannot be read: {error.strerror or error}") from None
        capture = self._open()
        self.fps: float | None = frame_rate(capture)
        capture.release()

    def shots(self, first: int, watch: Watch) -> Generator[Shot, None, None]:
        capture = self._open()
        tally = Tally(capture)
        try:
            for index, at_s in enumerate(grabbed(capture, tally, watch)):
                if index >= first and (read := capture.retrieve())[0]:
                    yield Shot(read[1], index, at_s)
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


def _path_for_ffmpeg(path: Path) -> str:
    """A path that FFmpeg opens as a file, whatever characters it has."""
    try:
        os.fsencode(path).decode("utf-8")
    except UnicodeDecodeError:  # FFmpeg refuses such a name; the descriptor stays open until the process ends
        return f"/proc/self/fd/{os.open(path, os.O_RDONLY)}"
    return os.path.abspath(path)  # a relative cam1:yard.mp4 would be a URL of the protocol cam1


def _states_its_frames(head: bytes) -> bool:
    """Whether the container stores its exact number of frames (MP4, AVI). For others FFmpeg estimates the number."""
    return head[4:8] == b"ftyp" or head.startswith(b"RIFF")


def frame_rate(capture: Any) -> float | None:
    """Frames per second that the container states; None when it states none, or no plausible one."""
    fps = capture.get(cv2.CAP_PROP_FPS)
    return float(fps) if 0 < fps <= MOST_FPS else None


def grabbed(capture: Any, tally: Tally, watch: Watch) -> Iterator[float]:
    """Decode picture after picture; yields the presentation time of each in seconds, strictly ascending."""
    clock = _FileClock(1.0 / (tally.fps or 10.0))
    while not watch.stopped and capture.grab():
        watch.heard()
        file_s = capture.get(cv2.CAP_PROP_POS_MSEC) / 1e3
        tally.add(file_s)
        yield clock.ascending_s(file_s)


class _FileClock:
    """Makes the times of a file strictly ascend where they stand still, jump or restart."""

    def __init__(self, step_s: float) -> None:
        self._step_s, self._last_s, self._offset_s = step_s, -step_s, 0.0

    def ascending_s(self, file_s: float) -> float:
        next_s = self._last_s + self._step_s
        if not abs(file_s + self._offset_s - self._last_s) <= LONGEST_STEP_S:
            self._offset_s = next_s - file_s if math.isfinite(file_s) else 0.0
        at_s = file_s + self._offset_s
        self._last_s = at_s if at_s > self._last_s else next_s
        return self._last_s


class Tally:
    """Counts the decoded frames of one pass, and the frames that are missing between them."""

    def __init__(self, capture: Any) -> None:
        self.fps = frame_rate(capture)
        stated = capture.get(cv2.CAP_PROP_FRAME_COUNT)
        self._stated = int(stated) if 0 < stated < 1e9 else 0
        self._decoded = self._regular = 0
        self._first_s, self._last_s, self._newest_s = math.nan, math.nan, -math.inf
        self.missing = 0

    def add(self, at_s: float) -> None:
        """Count a decoded frame with its time in the file."""
        if self._decoded == 0:
            self._first_s = at_s
        elif self.fps is not None:
            self._regular += abs((at_s - self._last_s) * self.fps - 1) <= STEP_TOLERANCE
        self._last_s, self._newest_s = at_s, max(at_s, self._newest_s)
        self._decoded += 1
        self.missing = self._gaps()

    def end(self, counted: bool) -> None:
        """Count at the end of the file. ``counted``: the number of frames that it states is exact."""
        short = self._stated - self._decoded
        if (counted or self._is_regular) and short > max(1, ESTIMATE_FRAC * self._stated):
            self.missing = short
        elif self._stated and short <= 1:
            self.missing = 0  # all frames are there, so the gaps come from a varying frame rate

    @property
    def _is_regular(self) -> bool:
        return self.fps is not None and self._regular >= REGULAR_FRAC * (self._decoded - 1)

    def _gaps(self) -> int:
        """Frames missing between the first and the newest time."""
        if not self._is_regular or self.fps is None or not math.isfinite(self._newest_s - self._first_s):
            return 0
        return max(round((self._newest_s - self._first_s) * self.fps) + 1 - self._decoded, 0)

    def report(self, name: str, watch: Watch) -> None:
        """Pass the number of missing frames to the watch, and log it."""
        watch.missing = self.missing
        if self.missing:
            all_ = self._decoded + self.missing
            watch.log(f"source {name}: {self.missing} of {all_} frames are missing; the file is damaged or cut off")
