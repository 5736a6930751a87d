"""Look at footage before it is adopted: how many frames, of which size, how fast, and how they are split."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from controller.errors import UsageError
from runtime.files.masking import shown
from runtime.sources.capture import open_capture
from runtime.sources.video_file import frame_rate
from runtime.workloads.adopted.description import Footage, by_time
from runtime.workloads.adopted.pictures import FolderPictures, digest_of, size_of

MODEL, LABELS = "the model", "the labels"  # who says what is in the frames
LEAST_PER_SPLIT = 10  # fewer frames say nothing of a variant's accuracy
#: Frames are made no larger than this: resizing a larger one costs a device more than it gains.
LONGEST_SIDE_PX = 1_920
DEFAULT_FPS = 10.0  # of a video that states none
_REPORT_EVERY = 50

Splits = dict[Any, tuple[int, int]]


@dataclass(frozen=True)
class Found:
    """Footage, and what its frames look like."""

    footage: Footage
    frame_shape: tuple[int, int, int]  # of the workload's frames
    files: tuple[Path, ...] = ()  # of a folder of pictures, in their order

    @property
    def name_of(self) -> Callable[[int], str]:
        """The stem of the picture that is a frame; of a video, its number."""
        step, files = self.footage.step, self.files
        return (lambda number: files[number * step].stem) if files else (lambda number: str(number * step))


def look_at(
    path: Path,
    fps: float | None = None,
    most_frames: int | None = None,
    advance: Callable[[int], None] = lambda frames: None,
) -> Found:
    """Count the frames of a video or a folder of pictures; every picture of a video is decoded once.

    ``fps``: of the workload's frames; of a faster video only every n-th picture is a frame. ``most_frames``: the first
    ones count. ``advance`` gets the number of pictures decoded since its last call. UsageError when there is no footage
    at the path, too little of it, or no video; FailureError when a picture cannot be decoded.
    """
    if not path.exists():
        raise UsageError(f"--footage {shown(path)}: no such file or folder; expected a video, or a folder of pictures")
    if path.is_dir():
        folder = FolderPictures(path)
        count, own_fps, files = len(folder.files), fps or 0.0, tuple(folder.files)
        by_time_of(min(count, most_frames or count), shown(path))
        shape = _checked(folder, min(count, most_frames or count), advance)
    elif not path.is_file():
        raise UsageError(f"--footage {shown(path)} is not a file; expected a video, or a folder of pictures")
    else:
        count, own_fps, shape = _counted(path, advance)
        files = ()
    step = 1 if files or not fps else max(round(own_fps / fps), 1)
    frames = min(-(-count // step), most_frames or count)
    by_time_of(frames, shown(path) + (f", of which every picture number {step} is used (--fps)," if step > 1 else ""))
    resolved = path.resolve()
    footage = Footage(
        resolved.name, str(resolved), digest_of(resolved), size_of(resolved), frames, own_fps / step, step
    )
    return Found(footage, _frame_shape(shape), files)


def by_time_of(frames: int, name: str) -> Splits:
    """Splits by time: the first half trains, the last 30 % test; UsageError when there are too few frames."""
    splits = by_time(frames)
    if min(stop - start for start, stop in splits.values()) < LEAST_PER_SPLIT:
        least = next(n for n in range(3, 1_000) if _shortest(n) >= LEAST_PER_SPLIT)
        raise UsageError(f"the footage {name} has {frames} frames; expected {least} or more, to split it by time")
    return splits


def _shortest(frames: int) -> int:
    return min(stop - start for start, stop in by_time(frames).values())


def check_found(truths: Sequence[Any], splits: Splits, what: str) -> None:
    """UsageError when boxes are wanted and there is none in the footage, or in one of its splits.

    ``what`` says who found nothing: `MODEL` or `LABELS`.
    """
    if not any(truths):
        way_out = (
            "check that they are of this footage, in pixels (COCO) or fractions of the picture (YOLO)"
            if what == LABELS
            else "lower --threshold, check --decode, --colours and --scale, or bring footage that shows what the model "
            "detects"
        )
        raise UsageError(f"{what} found nothing in {len(truths)} frames of the footage; expected detections: {way_out}")
    for split, (start, stop) in splits.items():
        if not any(truths[start:stop]):
            raise UsageError(
                f"{what} found nothing in the {split} frames ({start} to {stop - 1}); expected detections in each "
                "split: bring longer footage"
            )


def _checked(folder: FolderPictures, count: int, advance: Callable[[int], None]) -> tuple[int, ...]:
    """Decode the first pictures of a folder, so that a damaged one is told before any long work; shape of the first."""
    shape = folder.picture(0).shape
    for number in range(count):
        folder.picture(number)
        advance(1)
    return shape


def _counted(path: Path, advance: Callable[[int], None]) -> tuple[int, float, tuple[int, ...]]:
    """Pictures, frames per second, and shape of the first picture of a video."""
    capture = open_capture(str(path.resolve()))
    try:
        if capture is None or not capture.grab():
            raise UsageError(
                f"the footage {shown(path)} cannot be decoded; expected a video that OpenCV can decode, or a folder of "
                "pictures"
            )
        shape, count = capture.retrieve()[1].shape, 1
        while capture.grab():
            count += 1
            if count % _REPORT_EVERY == 0:
                advance(_REPORT_EVERY)
        advance(count % _REPORT_EVERY)
        return count, frame_rate(capture) or DEFAULT_FPS, shape
    finally:
        if capture is not None:
            capture.release()


def _frame_shape(picture: tuple[int, ...]) -> tuple[int, int, int]:
    factor = min(1.0, LONGEST_SIDE_PX / max(picture[:2]))
    return max(round(picture[0] * factor), 1), max(round(picture[1] * factor), 1), 3
