"""Frames without ground truth: a thread reads the footage, and the device takes the frames that are due.

The thread keeps slow cameras and decoders away from the device's loop, which only checks for new pictures.

A recording (video file, folder, pipe) is read a few pictures ahead. Picture i is captured at i / fps, or at its own
time in the file; if it is decoded later than that, it is captured then.

A live camera is read as its pictures arrive. A picture becomes a frame when at least one interval has passed since the
previous frame, and its capture time is its arrival. While a camera is away there are no frames.

The picture of a frame is kept until the frame has its outcome, because a fallback may compute it again.
"""

from __future__ import annotations

import math
import sys
import threading
import time
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import cv2
import numpy as np

from controller.errors import FailureError, UsageError
from runtime.files.masking import shown
from runtime.sources.capture import CAMERA_WAIT_S
from runtime.sources.footage import letterbox, open_footage, placement_of
from runtime.sources.frames import Feed
from runtime.sources.image_iterable import ImageIterable
from runtime.sources.shots import Clock, Footage, Log, Shot, Watch
from runtime.sources.spool import Spool
from runtime.workloads.placement import Placement
from runtime.workloads.types import Image

#: Read-ahead for recordings, buffer size for live cameras, in pictures.
READ_AHEAD = 8
#: Interval at which the device checks for a due picture. Short compared with every stage of a request.
LOOK_S = 0.002
#: A source without a picture for this long has stalled. Longer than the time after which OpenCV reports a dead camera.
STALL_S = CAMERA_WAIT_S + 1.0
#: A picture may come this share of an interval early, because cameras jitter.
EARLY_FRAC = 0.25
#: Two frames of a camera are at least this share of an interval apart: after a gap, pictures arrive in bursts.
LEAST_STEP_FRAC = 0.5
#: Longest wait for the thread at the end. A library call that takes longer is not waited for.
JOIN_S = 0.25


def open_source(
    text: str,
    shape: tuple[int, ...],
    first: int = 0,
    keep: bool = False,
    *,
    retry_s: float = 0.0,
    own_times: bool = False,
    log: Log = lambda _: None,
) -> FootageSource:
    """Open what the user named; its pictures are letterboxed to ``shape``, (h, w) or (h, w, 3).

    ``first``: number of the first picture of a recording. With ``keep``, the pictures of a camera or pipe can be
    replayed. A camera that gives no picture is reopened for ``retry_s`` seconds. With ``own_times``, a recording is
    played by the times in the file instead of the frame rate of the run.

    FailureError when the source cannot be opened; UsageError when an option does not fit its kind.
    """
    footage = open_footage(text)
    if footage.live and first:
        raise FailureError(f"got --start {first} with {footage.name}, which is live; expected a recording")
    if own_times and footage.fps is None:
        raise UsageError(f"got --source-fps file with {footage.name}, which has no times of its own; expected a video")
    source = FootageSource(footage, shape, first, keep, watch=Watch(retry_s, log), own_times=own_times)
    source.wait_until_open(0.0 if footage.live and retry_s else footage.open_wait_s)
    return source


def play_images(
    images: Iterable[Image], shape: tuple[int, ...], first: int = 0, keep: bool = False, *, log: Log = lambda _: None
) -> FootageSource:
    """Images of a Python program, letterboxed to ``shape``. The program may take any time for each of them."""
    return FootageSource(ImageIterable(images), shape, first, keep, watch=Watch(math.inf, log))


@dataclass(frozen=True, slots=True)
class _Picture:
    """A picture that was read and is not a frame yet."""

    arrived_s: float
    image: Image | None  # letterboxed; None when it will be dropped before anyone needs it
    original_shape: tuple[int, ...]  # before letterboxing
    source_index: int | None = None  # None: the same as the number of its frame
    file_time_s: float | None = None  # since the first picture, by the times in the file
    spool_index: int = 0


@dataclass(frozen=True, slots=True)
class _HeldFrame:
    """A captured frame that has no outcome yet."""

    source_index: int
    image: Image | None
    original_shape: tuple[int, ...]


class FootageSource:
    """A source without ground truth. Owns the reading thread, and the pictures of frames without an outcome.

    ``shape`` is that of the workload's frames, (h, w) or (h, w, 3). ``first`` is the index of the first picture. With
    ``keep``, pictures of a camera or pipe are kept for ``replay``. With ``own_times``, capture times are those in the
    file.
    """

    count: int = sys.maxsize

    def __init__(
        self,
        footage: Footage,
        shape: tuple[int, ...],
        first: int,
        keep: bool,
        clock: Clock = time.perf_counter,
        watch: Watch | None = None,
        own_times: bool = False,
    ) -> None:
        self.name = footage.name
        self.failure = ""
        self.cause: BaseException | None = None
        self._footage, self._shape, self._first, self._clock = footage, shape, first, clock
        self._watch = watch or Watch(clock=clock)
        self._own_times = own_times
        self._first_at_s: float | None = None
        self._spool = Spool(shape) if keep and footage.once else None
        self._held: dict[int, _HeldFrame] = {}  # by frame number
        self._number_of: dict[int, int] = {}  # source index -> number of a held frame
        self._spool_index: dict[int, int] = {}  # source index -> index in the spool
        self._next_number = first
        self._start_s, self._interval_s, self._due_s = math.inf, 0.0, math.inf
        self._look_s = math.inf
        self._arrived_s = -math.inf  # arrival of a camera's newest frame
        # Shared with the thread, under the condition:
        self._condition = threading.Condition()
        self._ready: deque[_Picture] = deque()
        self._over = False
        self._thread = threading.Thread(target=self._read, name="source", daemon=True)
        self._thread.start()

    def wait_until_open(self, limit_s: float) -> None:
        """Wait for the first picture or an opened camera, up to ``limit_s`` seconds; FailureError if reading failed."""
        end_s = self._clock() + limit_s
        with self._condition:
            while not (self._ready or self._over or self._watch.opened) and self._clock() < end_s:
                self._condition.wait(0.02)
        if self.failure:
            self.close()
            raise FailureError(self.failure)

    @property
    def fps(self) -> float | None:
        """Frame rate of the file if its own times are used, else None."""
        return self._footage.fps if self._own_times else None

    # Called by the device's loop -----------------------------------------------------------------------------

    @property
    def feed(self) -> Feed:
        return self

    def start(self, now_s: float, interval_s: float) -> None:
        """Begin to capture frames; with an interval of 0, ``take`` captures a picture at each call."""
        with self._condition:
            self._start_s = self._due_s = self._look_s = now_s
            self._interval_s = interval_s
            self._watch.heard_s = now_s

    @property
    def next_look_s(self) -> float:
        return self._look_s

    def take(self, now_s: float, limit: int) -> list[float]:
        """Capture times of the pictures that became frames since the last call, at most ``limit``. Never blocks."""
        with self._condition:
            taken: list[float] = []
            while len(taken) < limit and self._ready and self._due_at_s <= now_s:
                taken.append(self._take_one(now_s))
            self._look_s = max(self._due_at_s, now_s) if self._clocked and self._ready else now_s + LOOK_S
            self._check_stall(now_s)
            self._condition.notify_all()
        return taken

    @property
    def ended(self) -> bool:
        with self._condition:
            return self._over and not self._ready

    @property
    def _clocked(self) -> bool:
        """Whether capture times follow a clock: those of a camera are arrivals, those of a closed loop are calls."""
        return not self._footage.live and bool(self._interval_s)

    @property
    def _due_at_s(self) -> float:
        """Capture time of the next ready picture; -inf when it is due at once."""
        if not self._clocked:
            return -math.inf
        file_time_s = self._ready[0].file_time_s
        grid_s = (self._next_number - self._first) * self._interval_s
        return self._start_s + (grid_s if file_time_s is None else file_time_s)

    def _take_one(self, now_s: float) -> float:
        due_s, picture = self._due_at_s, self._ready.popleft()
        captured_s = picture.arrived_s
        if not self._footage.live:
            captured_s = max(due_s, captured_s) if self._clocked else now_s
        number = self._next_number
        source_index = number if picture.source_index is None else picture.source_index
        self._held[number] = _HeldFrame(source_index, picture.image, picture.original_shape)
        self._number_of[source_index] = number
        if self._spool:
            self._spool_index[source_index] = picture.spool_index
        self._next_number += 1
        return captured_s

    def _check_stall(self, now_s: float) -> None:
        patience_s = STALL_S + self._watch.retry_s
        if not self._over and not self._ready and now_s - self._watch.heard_s > patience_s:
            self.failure = f"source {self.name} gave no picture for {patience_s:g} s"
            self._over = True
            self._watch.stop()

    # Called by the device's computation ----------------------------------------------------------------------

    def prepare(self) -> None:
        """Nothing to do: the thread already reads ahead."""

    def picture(self, index: int) -> Image:
        image = self._held[index].image
        assert image is not None, "a picture without an image is dropped before it is computed"
        return image

    def truth(self, index: int) -> Any:
        """None: footage has no ground truth."""
        return None

    def source_index(self, index: int) -> int:
        return self._held[index].source_index

    def release(self, source_index: int) -> None:
        number = self._number_of.pop(source_index, None)
        if number is not None:
            self._held.pop(number, None)

    def placement(self, source_index: int) -> Placement | None:
        number = self._number_of.get(source_index)
        original = self._shape if number is None else self._held[number].original_shape
        return None if original[:2] == self._shape[:2] else placement_of(original, self._shape)

    def replay(self, source_indices: Sequence[int]) -> Iterator[Image]:
        self._stop()
        if self._spool is None and self._footage.once:
            raise FailureError(f"pictures of {self.name} have passed and were not kept")
        wanted = deque(self._spool_index[index] if self._spool else index for index in source_indices)
        black = np.zeros(self._shape, np.uint8)  # stands for a picture that can no longer be read
        for shot in self._spool.shots() if self._spool else self._footage.shots(min(wanted, default=0), Watch()):
            while wanted and wanted[0] <= shot.index:
                yield letterbox(shot.image, self._shape) if wanted.popleft() == shot.index else black
            if not wanted:
                return
        yield from (black for _ in wanted)

    def notes(self) -> dict[str, float]:
        return self._watch.notes()

    def close(self) -> None:
        """Stop reading and forget what was kept; may be called twice."""
        self._stop()
        if self._spool:
            self._spool.close()

    def _stop(self) -> None:
        self._watch.stop()
        with self._condition:
            self._over = True
            self._condition.notify_all()
        self._thread.join(JOIN_S)

    # The thread ----------------------------------------------------------------------------------------------

    def _read(self) -> None:
        failure = ""
        shots = self._footage.shots(self._first, self._watch)
        try:
            for shot in shots:
                self._watch.heard()
                if not (self._arrived(shot) if self._footage.live else self._decoded(shot)):
                    break
            else:
                failure = f"source {self.name} gives no more pictures" if self._footage.live else ""
        except FailureError as error:
            failure, self.cause = str(error), error.__cause__
        except (OSError, ValueError, MemoryError, cv2.error) as error:
            failure = f"source {self.name}: {shown(str(error) or type(error).__name__)}"
        finally:
            shots.close()
            self._watch.sum_up(self.name)
        with self._condition:
            self.failure = self.failure or ("" if self._over else failure)
            self._over = True
            self._condition.notify_all()

    def _decoded(self, shot: Shot) -> bool:
        """Append a picture of a recording and wait for room; False when the run has ended."""
        framed = letterbox(shot.image, self._shape)
        spool_index = self._spool.write(framed) if self._spool else 0
        file_time_s = self._since_first(shot) if self._own_times else None
        with self._condition:
            self._ready.append(_Picture(self._clock(), framed, shot.image.shape, shot.index, file_time_s, spool_index))
            self._condition.notify_all()
            self._condition.wait_for(lambda: len(self._ready) < READ_AHEAD or self._over)
            self._watch.heard()
            return not self._over

    def _since_first(self, shot: Shot) -> float | None:
        if shot.at_s is None:
            return None
        self._first_at_s = shot.at_s if self._first_at_s is None else self._first_at_s
        return shot.at_s - self._first_at_s

    def _arrived(self, shot: Shot) -> bool:
        """Append a picture of a camera if a frame is due; False when the run has ended."""
        now_s = self._clock()
        with self._condition:
            earliest_s = self._arrived_s + LEAST_STEP_FRAC * self._interval_s
            due = now_s >= max(self._due_s - EARLY_FRAC * self._interval_s, earliest_s)
            if self._over or not due:
                return not self._over
            # Due times lie on a grid; after a gap the grid restarts at this picture.
            on_grid = now_s < self._due_s + self._interval_s
            self._due_s = (self._due_s if on_grid else now_s) + self._interval_s
            self._arrived_s = now_s
        framed = letterbox(shot.image, self._shape)
        spool_index = self._spool.write(framed) if self._spool else 0
        with self._condition:
            if not self._interval_s:
                self._ready.clear()  # a closed loop sees the newest picture
            self._ready.append(_Picture(now_s, framed, shot.image.shape, spool_index=spool_index))
            if len(self._ready) > READ_AHEAD:
                # The device's queue will drop this frame in favour of newer ones, so its image needs no memory.
                unseen = len(self._ready) - READ_AHEAD - 1
                self._ready[unseen] = replace(self._ready[unseen], image=None)
        return True
