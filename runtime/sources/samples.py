"""Where do a device's frames come from? From the workload's own samples, or from footage that has no truth.

Theory of operation. A thread reads the footage, so that neither a slow camera nor a decoder ever holds up the loop of
the device, which only looks whether there is something new. A recording (video file, folder, pipe) is read a few
pictures ahead; picture i is captured at i / fps (or at its own time in the file), or when it has been decoded if that
is later. A live camera is read as it comes; a picture becomes a frame when it arrives at least an interval after the
frame before it, and is captured when it arrived. While a camera is away there are no frames. A frame's picture is kept
until the frame has its outcome, because a fallback computes it once more.
"""

from __future__ import annotations

import math
import sys
import tempfile
import threading
import time
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

import cv2
import numpy as np

from controller.errors import FailureError, UsageError
from runtime.files.masking import shown
from runtime.sources.capture import CAMERA_WAIT_S
from runtime.sources.footage import letterbox, open_footage, placement_of
from runtime.sources.frames import Feed
from runtime.sources.image_iterable import ImageIterable
from runtime.sources.shots import Clock, Footage, Log, Shot, Watch
from runtime.sources.video_file import VideoFile
from runtime.workloads.base import Frames
from runtime.workloads.placement import Placement
from runtime.workloads.types import Image, Split

#: How many pictures are read before they are wanted, or kept of those that came while nobody looked.
READ_AHEAD = 8
#: How often the device looks for a picture that is due. Small beside every stage that it waits for.
LOOK_S = 0.002
#: Without a picture for so long a source counts as stalled; more than an opened camera takes to say so itself.
STALL_S = CAMERA_WAIT_S + 1.0
#: Share of an interval by which a camera may be early: cameras jitter.
EARLY_FRAC = 0.25
#: Least share of an interval between two frames of a camera: after a gap its pictures come in bursts.
LEAST_STEP_FRAC = 0.5
#: Longest that the end waits for the thread. A call into a library may last longer; nothing waits for that.
JOIN_S = 0.25


class Source(Protocol):
    """Pictures by number."""

    name: str
    failure: str  # why it ended too early, or nothing
    cause: BaseException | None  # of that, where an exception was

    @property
    def fps(self) -> float | None:
        """Its own frame rate, where that is the one to go by."""
        ...

    @property
    def count(self) -> int:
        """Pictures there are before the source repeats."""
        ...

    @property
    def feed(self) -> Feed | None:
        """What tells when pictures come; None when every picture is there at any time."""
        ...

    def prepare(self) -> None:
        """Load what the first frame would have to wait for."""
        ...

    def picture(self, index: int) -> Image:
        """A captured picture."""
        ...

    def truth(self, index: int) -> Any:
        """Its truth; None where that is not known."""
        ...

    def release(self, index: int) -> None:
        """The frame has its outcome."""
        ...

    def source_index(self, index: int) -> int:
        """Its number for people: test image, frame of the video."""
        ...

    def placement(self, index: int) -> Placement | None:
        """Where the picture with that number for people lies in its frame, until it is released; None when it is the
        frame."""
        ...

    def replay(self, indices: Sequence[int]) -> Iterator[Image]:
        """Pictures of a run that is over once more, by their numbers for people; those of footage ascend."""
        ...

    def notes(self) -> dict[str, float]:
        """What a summary should say of it: counts of pictures that could not be had."""
        ...

    def close(self) -> None: ...


class Samples:
    """The workload's own frames, with their truth."""

    feed: Feed | None = None
    failure: str = ""
    cause: BaseException | None = None
    fps: float | None = None

    def __init__(self, workload: Frames, split: Split = "test", played: range = range(1)) -> None:
        """``played``: the samples that will be asked for, as far as that is known."""
        self._workload, self._split, self._played = workload, split, played
        self.name = f"{workload.name}, {split} samples"

    @property
    def count(self) -> int:
        return self._workload.sample_count(self._split)

    def prepare(self) -> None:
        for index in self._played[: self.count]:
            self._workload.sample(index, self._split)

    def picture(self, index: int) -> Image:
        return self._workload.sample(index, self._split)[0]

    def truth(self, index: int) -> Any:
        return self._workload.sample(index, self._split)[1]

    def source_index(self, index: int) -> int:
        return self._workload.source_index(index, self._split)

    def release(self, index: int) -> None:
        """Nothing is kept."""

    def placement(self, index: int) -> Placement | None:
        return None

    def replay(self, indices: Sequence[int]) -> Iterator[Image]:
        samples = {self._workload.source_index(i, self._split): i for i in range(self.count)}
        return (self.picture(samples[index]) for index in indices)

    def notes(self) -> dict[str, float]:
        return {}

    def close(self) -> None:
        """Nothing is open."""


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
    """What the user named, its pictures brought to a workload's frame.

    With ``keep`` the pictures of a camera can be replayed. ``retry_s``: how long without a picture a camera is tried
    again. With ``own_times`` a recording is played by its own clock, not at the frame rate of the run.
    """
    footage = open_footage(text)
    if footage.live and first:
        raise FailureError(f"got --start {first} with {footage.name}, which is live; expected a recording")
    if own_times and footage.fps is None:
        raise UsageError(f"got --source-fps file with {footage.name}, which has no times of its own; expected a video")
    source = FootageSource(footage, shape, first, keep, watch=Watch(retry_s, log), own_times=own_times)
    source.wait_for_news(0.0 if footage.live and retry_s else footage.open_wait_s)
    return source


def play_images(
    images: Iterable[Image], shape: tuple[int, ...], first: int = 0, keep: bool = False, *, log: Log = lambda _: None
) -> FootageSource:
    """Images that a program makes, brought to a workload's frame. It may take its time for each of them."""
    return FootageSource(ImageIterable(images), shape, first, keep, watch=Watch(math.inf, log))


class FootageSource:
    """Owns the thread that reads, and the pictures of frames that have no outcome yet."""

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
        self._spool = _Spool(shape) if keep and footage.once else None
        self._held: dict[int, Image] = {}  # pictures of frames, by number
        self._place: dict[int, int] = {}  # of those frames in the source
        self._number: dict[int, int] = {}  # the other way round
        self._sizes: dict[int, tuple[int, ...]] = {}  # shapes of the pictures as they came, by number
        self._spooled: dict[int, int] = {}  # place in the source -> place in the spool
        self._next_number = first
        self._start_s, self._interval_s, self._due_s = math.inf, 0.0, math.inf
        self._look_s = math.inf
        self._arrived_s = -math.inf  # when the newest frame of a camera did
        # Shared with the thread, under the condition:
        self._condition = threading.Condition()
        self._ready: deque[_Picture] = deque()
        self._over = False
        self._thread = threading.Thread(target=self._read, name="source", daemon=True)
        self._thread.start()

    def wait_for_news(self, limit_s: float) -> None:
        """Until there is a picture, or it is certain that there is none; FailureError then."""
        end_s = self._clock() + limit_s
        with self._condition:
            while not (self._ready or self._over or self._watch.opened) and self._clock() < end_s:
                self._condition.wait(0.02)
        if self.failure:
            self.close()
            raise FailureError(self.failure)

    @property
    def fps(self) -> float | None:
        """Of the recording's own times, where it is played by them."""
        return self._footage.fps if self._own_times else None

    # What the device's loop asks -----------------------------------------------------------------------------

    @property
    def feed(self) -> Feed:
        return self

    def start(self, now_s: float, interval_s: float) -> None:
        """Frames begin now; an interval of 0 captures one picture whenever it is asked for."""
        with self._condition:
            self._start_s = self._due_s = self._look_s = now_s
            self._interval_s = interval_s
            self._watch.heard_s = now_s

    @property
    def next_look_s(self) -> float:
        return self._look_s

    def take(self, now_s: float, most: int) -> list[float]:
        """When the pictures that became frames since the last call were captured, at most so many; never blocks."""
        with self._condition:
            taken: list[float] = []
            while len(taken) < most and self._ready and self._due_at_s <= now_s:
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
        """Whether pictures are captured when a clock says so, not when they arrive or are asked for."""
        return not self._footage.live and bool(self._interval_s)

    @property
    def _due_at_s(self) -> float:
        """When the next of the pictures that are ready is a frame."""
        if not self._clocked:
            return -math.inf
        own_s = self._ready[0].own_s
        return self._start_s + ((self._next_number - self._first) * self._interval_s if own_s is None else own_s)

    def _take_one(self, now_s: float) -> float:
        due_s, picture = self._due_at_s, self._ready.popleft()
        captured_s = picture.arrived_s
        if not self._footage.live:
            captured_s = max(due_s, captured_s) if self._clocked else now_s
        number = self._next_number
        place = number if picture.place is None else picture.place
        if picture.image is not None:
            self._held[number] = picture.image
        self._place[number], self._number[place], self._sizes[number] = place, number, picture.came_as
        if self._spool:
            self._spooled[place] = picture.spooled
        self._next_number += 1
        return captured_s

    def _check_stall(self, now_s: float) -> None:
        patience_s = STALL_S + self._watch.retry_s
        if not self._over and not self._ready and now_s - self._watch.heard_s > patience_s:
            self.failure = f"source {self.name} gave no picture for {patience_s:g} s"
            self._over = True
            self._watch.stop()

    # What the device's computation asks ----------------------------------------------------------------------

    def prepare(self) -> None:
        """The thread has begun to read."""

    def picture(self, index: int) -> Image:
        return self._held[index]

    def truth(self, index: int) -> Any:
        """Nobody knows it."""
        return None

    def source_index(self, index: int) -> int:
        return self._place[index]

    def release(self, index: int) -> None:
        number = self._number.pop(index, None)
        if number is not None:
            self._held.pop(number, None)
            self._place.pop(number, None)
            self._sizes.pop(number, None)

    def placement(self, index: int) -> Placement | None:
        came_as = self._sizes.get(self._number.get(index, -1), self._shape)
        return None if came_as[:2] == self._shape[:2] else placement_of(came_as, self._shape)

    def replay(self, indices: Sequence[int]) -> Iterator[Image]:
        self._stop()
        if self._spool is None and self._footage.once:
            raise FailureError(f"pictures of {self.name} have passed and were not kept")
        places = deque(self._spooled[index] if self._spool else index for index in indices)
        black = np.zeros(self._shape, np.uint8)  # for what can be read no more
        for shot in self._spool.shots() if self._spool else self._footage.shots(min(places, default=0), Watch()):
            while places and places[0] <= shot.place:
                yield letterbox(shot.image, self._shape) if places.popleft() == shot.place else black
            if not places:
                return
        yield from (black for _ in places)

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
        """Offer a picture of a recording when there is room; False when nobody wants more."""
        framed = letterbox(shot.image, self._shape)
        spooled = self._spool.write(framed) if self._spool else 0
        own_s = self._since_first(shot) if self._own_times else None
        with self._condition:
            self._ready.append(_Picture(self._clock(), framed, shot.image.shape, shot.place, own_s, spooled))
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
        """Offer a picture of a camera when a frame is due."""
        now_s = self._clock()
        with self._condition:
            earliest_s = self._arrived_s + LEAST_STEP_FRAC * self._interval_s
            due = now_s >= max(self._due_s - EARLY_FRAC * self._interval_s, earliest_s)
            if self._over or not due:
                return not self._over
            # On the grid of the clock; after a gap the grid begins anew.
            on_grid = now_s < self._due_s + self._interval_s
            self._due_s = (self._due_s if on_grid else now_s) + self._interval_s
            self._arrived_s = now_s
        framed = letterbox(shot.image, self._shape)
        spooled = self._spool.write(framed) if self._spool else 0
        with self._condition:
            if not self._interval_s:
                self._ready.clear()  # a closed loop sees the newest picture
            self._ready.append(_Picture(now_s, framed, shot.image.shape, None, None, spooled))
            if len(self._ready) > READ_AHEAD:
                # So many newer ones wait behind it that it will be dropped unseen.
                unseen = len(self._ready) - READ_AHEAD - 1
                self._ready[unseen] = replace(self._ready[unseen], image=None)
        return True


@dataclass(frozen=True, slots=True)
class _Picture:
    """One that was read and is no frame yet."""

    arrived_s: float
    image: Image | None  # as a frame; None when it will not be seen
    came_as: tuple[int, ...]  # shape before it became one
    place: int | None = None  # in the source; None: the number of its frame
    own_s: float | None = None  # after the first picture, by the file's own clock
    spooled: int = 0  # place in the spool


class _Spool:
    """Owns a temporary video of what a camera gave, for pictures of it after the run."""

    FPS = 10.0  # of no importance: pictures are found by their place

    def __init__(self, shape: tuple[int, ...]) -> None:
        self._directory = tempfile.TemporaryDirectory(prefix="mecpilot-")
        self._path = str(Path(self._directory.name) / "spool.avi")
        size = (shape[1], shape[0])
        self._writer = cv2.VideoWriter(self._path, cv2.VideoWriter.fourcc(*"MJPG"), self.FPS, size)
        self._count = 0

    def write(self, image: Image) -> int:
        """Its place."""
        self._writer.write(image if image.ndim == 3 else cv2.cvtColor(image, cv2.COLOR_GRAY2BGR))
        self._count += 1
        return self._count - 1

    def shots(self) -> Iterator[Shot]:
        self._writer.release()
        watch = Watch()
        yield from VideoFile(Path(self._path)).shots(0, watch)
        if watch.missing:
            raise FailureError(
                f"{watch.missing} pictures could not be kept in {self._directory.name}; is the disk full?"
            )

    def close(self) -> None:
        self._writer.release()
        self._directory.cleanup()
