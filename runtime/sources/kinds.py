"""Open any kind of source: the workload's samples, a named source, or an iterable of images."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from controller.errors import UsageError
from runtime.workloads.base import Workload
from runtime.workloads.types import Image, Split

if TYPE_CHECKING:
    from runtime.sources.samples import Samples, Source

#: None: the workload's samples. A name: see ``runtime.sources.footage.open_footage``. An int: a camera's index.
SourceLike = str | Path | int | Iterable[Image] | None


def open_any(
    source: SourceLike,
    workload: Workload,
    shape: tuple[int, ...],
    *,
    frames: int | None,
    start: int | None,
    keep: bool,
    retry_s: float,
    own_times: bool,
    log: Callable[[str], None],
) -> Source:
    """Open a source; UsageError or FailureError when that is not possible.

    ``shape``: (h, w) or (h, w, 3) of the workload's frames. ``start``: number of the first picture, 0 if None; the
    workload's samples are then those of the test split, otherwise of all splits. The other parameters are those of
    ``runtime.sources.footage_source.open_source``.
    """
    from runtime.sources.footage_source import open_source, play_images

    if source is None:
        return _samples(workload, start, frames or 1)
    if isinstance(source, str | Path | int):
        return open_source(str(source), shape, start or 0, keep=keep, retry_s=retry_s, own_times=own_times, log=log)
    return play_images(source, shape, start or 0, keep, log=log)


def _samples(workload: Workload, start: int | None, frames: int) -> Samples:
    from runtime.sources.samples import Samples

    split: Split = "test" if start is None else "all"
    first, count = start or 0, workload.sample_count(split)
    if first >= count:
        raise UsageError(f"--start {first}; expected at most {count - 1}, for {workload.name} has {count} samples")
    return Samples(workload, split, range(first, first + frames))
