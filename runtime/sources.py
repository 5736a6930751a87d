"""Where do a device's frames come from? From the workload's own samples, or from footage that has no truth.

Theory of operation. Footage is read by a thread, so that neither a slow camera nor a decoder ever holds up the loop of
the device, which only looks whether there is something new. A recording (video file, folder) is read a few pictures
ahead; picture i is captured at i / fps, or when it has been decoded if that is later. A live camera is read as it
comes; a picture becomes a frame when it arrives at least an interval after the frame before it, and is captured when
it arrived. A frame's picture is kept until the frame has its outcome, for a fallback computes it once more.
"""

from __future__ import annotations

import math
import sys
import tempfile
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

import cv2

from controller.errors import FailureError
from runtime.footage import CAMERA_WAIT_S, Footage, VideoFile, letterbox, open_footage
from runtime.frames import Feed
from runtime.workloads.base import Image, Split, Workload

#: How many pictures are read before they are wanted, or kept of those that came while nobody looked.
READ_AHEAD = 8
#: How often the device looks for a picture that is due. Small beside every stage that it waits for.
LOOK_S = 0.002
#: Without a picture for so long a source counts as stalled; more than an opened camera takes to say so itself.
STALL_S = CAMERA_WAIT_S + 1.0
#: Share of an interval by which a camera may be early: cameras jitter.
EARLY_FRAC = 0.25

Clock = Callable[[], float]


class Source(Protocol):
    """Pictures by number."""

    name: str
    failure: str  # why it ended too early, or nothing

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

    def replay(self, indices: Sequence[int]) -> Iterator[Image]:
        """Pictures of a run that is over once more, by their numbers for people; those of footage ascend."""
        ...

    def close(self) -> None: ...


class Samples:
    """The workload's own frames, with their truth."""

    feed: Feed | None = None
    failure: str = ""

    def __init__(self, workload: Workload, split: Split = "test", played: range = range(1)) -> None:
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

    def replay(self, indices: Sequence[int]) -> Iterator[Image]:
        samples = {self._workload.source_index(i, self._split): i for i in range(self.count)}
        return (self.picture(samples[index]) for index in indices)

    def close(self) -> None:
        """Nothing is open."""


def open_source(text: str, shape: tuple[int, ...], first: int = 0, keep: bool = False) -> FootageSource:
    """What the user named, its pictures brought to a workload's frame. With ``keep`` a camera's can be replayed."""
    footage = open_footage(text)
    if footage.live and first:
        raise FailureError(f"got --start {first} with {footage.name}, which is live; expected a recording")
    return FootageSource(footage, shape, first, keep)


class FootageSource:
    """Owns the thread that reads, and the pictures of frames that have no outcome yet."""

    count: int = sys.maxsize

    def __init__(
        self, footage: Footage, shape: tuple[int, ...], first: int, keep: bool, clock: Clock = time.perf_counter
    ) -> None:
        self.name = footage.name
        self.failure = ""
        self._footage, self._shape, self._first, self._clock = footage, shape, first, clock
        self._spool = _Spool(shape) if keep and footage.live else None
        self._held: dict[int, Image] = {}
        self._kept: dict[int, int] = {}  # number of a frame -> place in the spool
        self._next_number = first
        self._start_s, self._interval_s, self._due_s = math.inf, 0.0, math.inf
        self._look_s = math.inf
        # Shared with the thread, under the condition:
        self._condition = threading.Condition()
        self._ready: deque[_Picture] = deque()
        self._heard_s = clock()  # when the footage last gave a picture
        self._over = False
        self._thread = threading.Thread(target=self._read, name="source", daemon=True)
        self._thread.start()

    # What the device's loop asks -----------------------------------------------------------------------------

    @property
    def feed(self) -> Feed:
        return self

    def start(self, now_s: float, interval_s: float) -> None:
        """Frames begin now; an interval of 0 captures one picture whenever it is asked for."""
        with self._condition:
            self._start_s = self._due_s = self._look_s = self._heard_s = now_s
            self._interval_s = interval_s

    @property
    def next_look_s(self) -> float:
        return self._look_s

    def take(self, now_s: float, most: int) -> list[float]:
        """When the pictures that became frames since the last call were captured, at most so many; never blocks."""
        with self._condition:
            taken = [self._take_one(now_s) for _ in range(min(most, self._due_now(now_s)))]
            self._look_s = now_s + LOOK_S
            if not self._footage.live and self._interval_s and self._ready:
                self._look_s = max(self._next_due_s, now_s)
            self._check_stall(now_s)
            self._condition.notify()
        return taken

    @property
    def ended(self) -> bool:
        with self._condition:
            return self._over and not self._ready

    def _due_now(self, now_s: float) -> int:
        """How many of the pictures that are ready are frames by now."""
        if self._footage.live or not self._interval_s:
            return len(self._ready)
        due = math.floor((now_s - self._start_s) / self._interval_s) + 1 - (self._next_number - self._first)
        return max(min(due, len(self._ready)), 0)

    def _take_one(self, now_s: float) -> float:
        picture = self._ready.popleft()
        captured_s = picture.arrived_s
        if not self._footage.live:
            captured_s = max(self._next_due_s, captured_s) if self._interval_s else now_s
        if picture.image is not None:
            self._held[self._next_number] = picture.image
        self._kept[self._next_number] = picture.place
        self._next_number += 1
        return captured_s

    @property
    def _next_due_s(self) -> float:
        return self._start_s + (self._next_number - self._first) * self._interval_s

    def _check_stall(self, now_s: float) -> None:
        if not self._over and not self._ready and now_s - self._heard_s > STALL_S:
            self.failure = f"source {self.name} gave no picture for {STALL_S:g} s"
            self._over = True

    # What the device's computation asks ----------------------------------------------------------------------

    def prepare(self) -> None:
        """The thread has begun to read."""

    def picture(self, index: int) -> Image:
        return self._held[index]

    def truth(self, index: int) -> Any:
        """Nobody knows it."""
        return None

    def source_index(self, index: int) -> int:
        return index

    def release(self, index: int) -> None:
        self._held.pop(index, None)

    def replay(self, indices: Sequence[int]) -> Iterator[Image]:
        self._stop()
        if self._spool is None and self._footage.live:
            raise FailureError(f"pictures of {self.name} have passed and were not kept")
        places = [self._kept[index] if self._spool else index - self._first for index in indices]
        again = self._spool.images() if self._spool else self._footage.images(self._first)
        for place, image in enumerate(again):
            while places and places[0] == place:
                places.pop(0)
                yield letterbox(image, self._shape)
            if not places:
                return

    def close(self) -> None:
        """Stop reading and forget what was kept; may be called twice."""
        self._stop()
        if self._spool:
            self._spool.close()

    def _stop(self) -> None:
        with self._condition:
            self._over = True
            self._condition.notify()
        self._thread.join(STALL_S)  # a thread that reads while the interpreter goes would abort the process

    # The thread ----------------------------------------------------------------------------------------------

    def _read(self) -> None:
        try:
            for image in self._footage.images(self._first):
                if not (self._arrived(image) if self._footage.live else self._decoded(image)):
                    return
        except (FailureError, cv2.error) as error:
            self.failure = f"source {self.name}: {error}"
        with self._condition:
            if self._footage.live and not self._over and not self.failure:
                self.failure = f"source {self.name} ended: it gives no more pictures"
            self._over = True

    def _decoded(self, image: Image) -> bool:
        """Offer a picture of a recording when there is room; False when nobody wants more."""
        framed = letterbox(image, self._shape)
        with self._condition:
            self._heard_s = self._clock()
            self._ready.append(_Picture(self._heard_s, framed))
            self._condition.wait_for(lambda: len(self._ready) < READ_AHEAD or self._over)
            return not self._over

    def _arrived(self, image: Image) -> bool:
        """Offer a picture of a camera when a frame is due."""
        now_s = self._clock()
        with self._condition:
            self._heard_s = now_s
            due = now_s >= self._due_s - EARLY_FRAC * self._interval_s
            if self._over or not due:
                return not self._over
            self._due_s = max(self._due_s + self._interval_s, now_s)
        framed = letterbox(image, self._shape)
        place = self._spool.write(framed) if self._spool else 0
        with self._condition:
            if not self._interval_s:
                self._ready.clear()  # a closed loop sees the newest picture
            self._ready.append(_Picture(now_s, framed, place))
            if len(self._ready) > READ_AHEAD:
                # So many newer ones wait behind it that it will be dropped unseen.
                unseen = len(self._ready) - READ_AHEAD - 1
                self._ready[unseen] = replace(self._ready[unseen], image=None)
        return True


@dataclass(frozen=True, slots=True)
class _Picture:
    """One that was read and is no frame yet."""

    arrived_s: float
    image: Image | None  # None when it will not be seen
    place: int = 0  # in the spool


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

    def images(self) -> Iterator[Image]:
        self._writer.release()
        return VideoFile(Path(self._path)).images(0)

    def close(self) -> None:
        self._writer.release()
        self._directory.cleanup()
