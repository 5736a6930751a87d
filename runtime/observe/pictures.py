"""Draw the frames of a run with their predictions, decisions and latencies, as a strip or as a video.

A workload draws its predictions on the frame (``Workload.draw``). Below the frame, a panel has a caption with the
status, the latency against the deadline, and the decision. Only OpenCV is needed.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from controller.errors import FailureError, UsageError
from controller.records import Outcome
from runtime.files.atomic import appearing, write_whole
from runtime.files.masking import shown
from runtime.sources.capture import open_capture, pictures
from runtime.workloads.drawing import FAINT, GREY, LIGHT, WHITE, Colour, blank, text_width, write
from runtime.workloads.types import Image

Draw = Callable[[Image, Any], Image]  # see Workload.draw

STATUS_COLOURS: dict[str, Colour] = {
    "ok": (80, 175, 76),
    "skipped": (200, 150, 60),
    "cached": (200, 150, 60),
    "filtered": (200, 150, 60),
    "fallback": (30, 160, 240),
    "late": (60, 60, 225),
    "dropped": GREY,
}
PANEL_WIDTH_PX = 480  # in a strip
VIDEO_WIDTH_PX = 640
TEXT = 0.58  # font scale; legible at half the size of the picture
TROUGH: Colour = (70, 66, 62)
CAPTION_HEIGHT_PX = 86
MARGIN_PX = 10
#: Length of a latency bar, in deadlines.
BAR_DEADLINES = 1.5
STRIP_PANELS = 6
STRIP_COLUMNS = 3
#: Codec for each suffix: those that every build of OpenCV can write.
VIDEO_CODECS = {".mp4": "mp4v", ".avi": "MJPG"}
PICTURE_SUFFIXES = (*VIDEO_CODECS, ".png")


def check_picture_path(path: Path, option: str) -> None:
    """UsageError unless the suffix is known and a file of that name can be written. ``option`` names the option."""
    if path.suffix.lower() not in PICTURE_SUFFIXES:
        raise UsageError(f"{option} {path}; expected a name that ends in one of: {' '.join(PICTURE_SUFFIXES)}")
    folder = path.absolute().parent
    if not folder.is_dir() or path.is_dir():
        raise UsageError(f"{option} {path}; expected a file in a folder that exists")
    if not os.access(folder, os.W_OK | os.X_OK):
        raise UsageError(f"{option} {path}; expected a file in a folder that can be written to")


# One frame --------------------------------------------------------------------------------------------------


def panel(image: Image, outcome: Outcome, draw: Draw, width_px: int = PANEL_WIDTH_PX) -> Image:
    """A frame (h, w[, 3]) with its prediction, above a caption with status, latency and decision."""
    return np.vstack((scaled(draw(image, _numbered(outcome)), width_px), _caption(outcome, width_px)))


def _numbered(outcome: Outcome) -> Any:
    """The prediction, with the number of its object at the end of each item where objects are tracked."""
    if outcome.track_ids is None:
        return outcome.prediction
    return [[*item, track] for item, track in zip(outcome.prediction, outcome.track_ids, strict=True)]


def scaled(image: Image, width_px: int) -> Image:
    """The picture at another width, with the same aspect ratio."""
    scale = width_px / image.shape[1]
    how = cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC
    return np.asarray(cv2.resize(image, (width_px, round(image.shape[0] * scale)), interpolation=how), np.uint8)


def _caption(outcome: Outcome, width_px: int) -> Image:
    caption = blank(CAPTION_HEIGHT_PX, width_px)
    status = outcome.status.value
    colour = STATUS_COLOURS.get(status, GREY)
    cv2.rectangle(caption, (0, 0), (width_px, 3), colour, -1)
    right = _chip(caption, status, colour)
    write(caption, f"frame {outcome.source_index}", (right + 10, 29), TEXT)
    write(caption, _latency(outcome), (width_px - MARGIN_PX, 29), TEXT, align="right")
    _latency_bar(caption, outcome, colour)
    score = "" if outcome.score is None or outcome.prediction is None else f"score {outcome.score:.2f}"
    decided, room = _decided(outcome), width_px - 4 * MARGIN_PX - text_width(score, TEXT)
    write(caption, decided, (MARGIN_PX, 75), TEXT * min(1.0, room / max(text_width(decided, TEXT), 1)), FAINT)
    write(caption, score, (width_px - MARGIN_PX, 75), TEXT, align="right")
    return caption


def _chip(caption: Image, text: str, colour: Colour) -> int:
    """Write the status on its colour; returns the right edge in pixels."""
    right = MARGIN_PX + text_width(text, TEXT) + 16
    cv2.rectangle(caption, (MARGIN_PX, 11), (right, 36), colour, -1)
    write(caption, text, (MARGIN_PX + 8, 29), TEXT, WHITE)
    return right


def _decided(outcome: Outcome) -> str:
    if outcome.status.reused:
        return "not run: reuses an earlier answer"
    return "not decided" if outcome.decision is None else outcome.decision.label


def _latency(outcome: Outcome) -> str:
    if outcome.prediction is None:
        return f"no answer, deadline {outcome.deadline_ms:.0f} ms"
    return f"{outcome.latency_ms:.0f} of {outcome.deadline_ms:.0f} ms"


def _latency_bar(caption: Image, outcome: Outcome, colour: Colour) -> None:
    """Draw the latency as a bar and the deadline as a tick."""
    left, right = MARGIN_PX, caption.shape[1] - MARGIN_PX
    span_px = (right - left) / BAR_DEADLINES
    cv2.rectangle(caption, (left, 45), (right, 52), TROUGH, -1)
    if outcome.prediction is not None:
        share = min(outcome.latency_ms / outcome.deadline_ms, BAR_DEADLINES)
        cv2.rectangle(caption, (left, 45), (left + round(share * span_px), 52), colour, -1)
    tick = left + round(span_px)
    cv2.rectangle(caption, (tick - 1, 41), (tick, 56), LIGHT, -1)


# Many frames ------------------------------------------------------------------------------------------------


class PicturesSink:
    """A sink that keeps the outcomes and writes a strip or a video when it is closed."""

    def __init__(
        self,
        path: Path,
        replay: Callable[[Sequence[int]], Iterator[Image]],
        draw: Draw,
        fps: float,
        on_frame: Callable[[Outcome], Outcome] = lambda outcome: outcome,
    ) -> None:
        """``replay`` returns the frames of the run again (``Source.replay``); ``fps`` is the frame rate of a video.

        ``on_frame`` converts the prediction of an outcome from pixels of the picture to pixels of the frame.
        """
        self._path, self._replay, self._draw, self._fps = path, replay, draw, fps
        self._on_frame = on_frame
        self._outcomes: list[Outcome] = []
        self._closed = False

    def add(self, outcome: Outcome, /) -> None:
        self._outcomes.append(self._on_frame(outcome))

    def close(self) -> None:
        """Write the file; FailureError when that is not possible."""
        if not self._closed:
            self._closed = True
            write_pictures(self._path, self._outcomes, self._replay, self._draw, self._fps)


def write_pictures(
    path: Path, outcomes: Sequence[Outcome], replay: Callable[[Sequence[int]], Iterator[Image]], draw: Draw, fps: float
) -> None:
    """Write a strip (.png) or a video of a run.

    ``replay`` returns the frames of the run again (``Source.replay``). FailureError when the file cannot be written.
    """
    ordered = sorted(outcomes, key=lambda outcome: outcome.frame)
    is_strip = path.suffix.lower() == ".png"
    if is_strip:
        ordered = _evenly(ordered, STRIP_PANELS)
    width_px = PANEL_WIDTH_PX if is_strip else VIDEO_WIDTH_PX
    images = replay([outcome.source_index for outcome in ordered])
    panels = (panel(image, outcome, draw, width_px) for image, outcome in zip(images, ordered, strict=False))
    if is_strip:
        write_png(path, grid(list(panels), STRIP_COLUMNS))
    else:
        write_video(path, panels, fps)


def draw_strip(workload: str, outcomes: Sequence[Outcome], path: Path) -> None:
    """Write a strip of a run over the test samples of a workload."""
    from runtime.sources.samples import Samples
    from runtime.workloads.registry import get_workload

    work = get_workload(workload)
    write_pictures(path, outcomes, Samples(work).replay, work.draw, 0.0)


def _evenly(outcomes: Sequence[Outcome], count: int) -> list[Outcome]:
    """At most ``count`` outcomes, evenly spaced over the run."""
    if len(outcomes) <= count:
        return list(outcomes)
    return [outcomes[(2 * i + 1) * len(outcomes) // (2 * count)] for i in range(count)]


def grid(panels: Sequence[Image], columns: int) -> Image:
    """Panels of equal size in rows, with gaps between them. FailureError when there are none."""
    if not panels:
        raise FailureError("there is no frame to draw")
    height, width = panels[0].shape[:2]
    columns = min(columns, len(panels))
    rows = -(-len(panels) // columns)
    sheet = blank(rows * (height + MARGIN_PX) + MARGIN_PX, columns * (width + MARGIN_PX) + MARGIN_PX, WHITE)
    for index, image in enumerate(panels):
        top = MARGIN_PX + index // columns * (height + MARGIN_PX)
        left = MARGIN_PX + index % columns * (width + MARGIN_PX)
        sheet[top : top + height, left : left + width] = image
    return sheet


def write_png(path: Path, image: Image) -> None:
    """Write a PNG atomically; FailureError when that is not possible."""
    with _errors_of_opencv(path):
        encoded, data = cv2.imencode(".png", image)
    if not encoded:
        raise FailureError(f"cannot write {path}: OpenCV cannot encode this picture")
    write_whole(path, data.tobytes())


def write_video(path: Path, panels: Iterable[Image], fps: float) -> None:
    """Write panels of equal size as a video, atomically; FailureError when that is not possible."""
    with _errors_of_opencv(path), appearing(path) as partial:
        count = _write_frames(partial, path, panels, fps)
        if not count:
            raise FailureError("there is no frame to draw")
        if (readable := _frames_in(partial)) != count:
            # The writer does not report a full disk, but frames are missing from the file.
            raise FailureError(f"cannot write {path}: {readable} of {count} frames are in it; is the disk full?")


@contextmanager
def _errors_of_opencv(path: Path) -> Iterator[None]:
    """Turn errors of OpenCV and the system into a FailureError of one line."""
    try:
        yield
    except OSError as error:
        raise FailureError(f"cannot write {path}: {error.strerror or error}") from None
    except (cv2.error, MemoryError) as error:
        raise FailureError(f"cannot write {path}: {shown(str(error) or 'no memory')}") from None


def _write_frames(partial: Path, path: Path, panels: Iterable[Image], fps: float) -> int:
    """Write all frames; returns their number."""
    writer, count = None, 0
    try:
        for image in panels:
            if writer is None:
                codec = cv2.VideoWriter.fourcc(*VIDEO_CODECS[path.suffix.lower()])
                writer = cv2.VideoWriter(str(partial), codec, fps, image.shape[1::-1])
                if not writer.isOpened():
                    raise FailureError(f"cannot write {path}: OpenCV cannot write such a video into this folder")
            writer.write(image)
            count += 1
    finally:
        if writer is not None:
            writer.release()
    return count


def _frames_in(path: Path) -> int:
    """Number of whole frames in a video. Only the last three are decoded: a full disk damages the end of the file."""
    packets = open_capture(os.path.abspath(path), packets=True)
    if packets is None:
        return 0
    count = sum(1 for _ in pictures(packets))
    packets.release()
    frames = open_capture(os.path.abspath(path))
    if frames is None or _is_cut_off(path):
        return max(count - 1, 0)
    tail = min(count, 3)
    frames.set(cv2.CAP_PROP_POS_FRAMES, count - tail)
    decoded = sum(1 for _ in pictures(frames))
    frames.release()
    return count - tail + min(decoded, tail)


def _is_cut_off(path: Path) -> bool:
    """Whether an AVI file is shorter than its header states. A truncated MP4 file cannot be opened at all."""
    with path.open("rb") as file:
        head = file.read(8)
    return head.startswith(b"RIFF") and int.from_bytes(head[4:], "little") + len(head) > path.stat().st_size
