"""The contract of a frame source, and its simplest member: the workload's own samples with their truth."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Protocol

from runtime.sources.frames import Feed
from runtime.workloads.base import Frames
from runtime.workloads.placement import Placement
from runtime.workloads.types import Image, Split


class Source(Protocol):
    """Pictures by number.

    ``index`` is the sample number of a frame. ``source_index`` is the number that people see in outcomes: the test
    image, the frame of the video, the place in the folder.
    """

    @property
    def name(self) -> str:
        """What people call it."""
        ...

    @property
    def failure(self) -> str:
        """Why the source ended too early; empty otherwise."""
        ...

    @property
    def cause(self) -> BaseException | None:
        """The exception behind the failure, if there was one."""
        ...

    @property
    def fps(self) -> float | None:
        """Frame rate of the source's own clock when frames are captured by it, else None."""
        ...

    @property
    def count(self) -> int:
        """Number of pictures before the source repeats."""
        ...

    @property
    def feed(self) -> Feed | None:
        """The feed that says when pictures arrive; None when every picture is available at any time."""
        ...

    def prepare(self) -> None:
        """Load what the first frame would otherwise wait for."""
        ...

    def picture(self, index: int) -> Image:
        """A captured picture, (h, w) or (h, w, 3), in the workload's frame shape."""
        ...

    def truth(self, index: int) -> Any:
        """The truth of a picture; None when it is not known."""
        ...

    def source_index(self, index: int) -> int:
        """The source index of a captured picture."""
        ...

    def release(self, source_index: int) -> None:
        """Forget a picture whose frame has its outcome."""
        ...

    def placement(self, source_index: int) -> Placement | None:
        """Where a picture that was not released lies in its frame; None when it fills the frame unchanged."""
        ...

    def replay(self, source_indices: Sequence[int]) -> Iterator[Image]:
        """Pictures of a finished run, in the given order; for footage the indices must ascend."""
        ...

    def notes(self) -> dict[str, float]:
        """Counts for the summary: unreadable and missing pictures, camera losses, seconds without the camera."""
        ...

    def close(self) -> None:
        """Stop reading and free what is kept. May be called twice."""
        ...


class Samples:
    """The workload's own frames, with their truth."""

    feed: Feed | None = None
    failure: str = ""
    cause: BaseException | None = None
    fps: float | None = None

    def __init__(self, workload: Frames, split: Split = "test", played: range = range(1)) -> None:
        """``played``: the samples that the run will use; ``prepare`` loads them."""
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

    def release(self, source_index: int) -> None:
        """Nothing to do: the workload owns its samples."""

    def placement(self, source_index: int) -> Placement | None:
        return None

    def replay(self, source_indices: Sequence[int]) -> Iterator[Image]:
        index_of = {self._workload.source_index(index, self._split): index for index in range(self.count)}
        return (self.picture(index_of[source_index]) for source_index in source_indices)

    def notes(self) -> dict[str, float]:
        return {}

    def close(self) -> None:
        """Nothing to do: no file or thread is open."""
