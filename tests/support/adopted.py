"""Adopted workloads for tests: a video of coloured rectangles, and descriptions of detectors for it."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import cv2
import msgspec
import numpy as np

from runtime.workloads.adopted.description import (
    ADOPTION_FILE,
    FORMAT_VERSION,
    TRUTH_FILE,
    Adoption,
    Decoding,
    Footage,
    Truth,
    by_time,
    encode_adoption,
)
from runtime.workloads.adopted.families import WholeFamily
from runtime.workloads.adopted.geometry import Geometry
from runtime.workloads.adopted.pictures import digest_of, size_of

FRAMES = 20
SHAPE = (48, 64, 3)  # of the footage


def truth_at(number: int) -> list[list[float]]:
    """One box that moves to the right."""
    return [[2.0 + 2.0 * number, 10.0, 16.0, 12.0, 1.0, number % 2]]


def picture_at(number: int) -> np.ndarray[Any, Any]:
    """The frame with that number: a bright rectangle on a background that tells its number."""
    picture = np.full(SHAPE, 8 * number % 160, np.uint8)
    for x, y, w, h, *_ in truth_at(number):
        cv2.rectangle(picture, (int(x), int(y)), (int(x + w) - 1, int(y + h) - 1), (40, 80, 250), -1)
    return picture


def write_video(path: Path, frames: int = FRAMES) -> Path:
    """Lossless footage with 10 frames per second."""
    video = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"FFV1"), 10.0, (SHAPE[1], SHAPE[0]))
    for number in range(frames):
        video.write(picture_at(number))
    video.release()
    return path


def footage_of(path: Path, frames: int = FRAMES) -> Footage:
    """Its description."""
    return Footage(path.name, str(path), digest_of(path), size_of(path), frames, 10.0)


def adoption_of(video: Path, name: str = "site", **changes: Any) -> Adoption:
    """A detector of two classes with an output (6, 5) in the order of YOLOv8 at 64 px."""
    truths = msgspec.json.encode([truth_at(number) for number in range(FRAMES)])
    adoption = Adoption(
        format_version=FORMAT_VERSION,
        name=name,
        task="detect",
        geometry=Geometry(sizes={64: (64, 64), 32: (32, 32)}, fit="letterbox"),
        decoding=Decoding("yolov8", {64: ((6, 5),), 32: ((6, 3),)}, {"order": "boxes_last"}, most=8),
        frame_shape=SHAPE,
        footage=footage_of(video),
        splits=by_time(FRAMES),
        truth=Truth("model", hashlib.sha256(truths).hexdigest()),
        families={"whole": WholeFamily(1)},
        classes=("box", "bag"),
    )
    return msgspec.structs.replace(adoption, **changes)


def write_adoption(folder: Path, adoption: Adoption, truths: list[Any] | None = None) -> Path:
    """The description and the truths in a folder, as of a bundle; returns the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    all_truths = [truth_at(number) for number in range(FRAMES)] if truths is None else truths
    (folder / TRUTH_FILE).write_bytes(msgspec.json.encode(all_truths))
    (folder / ADOPTION_FILE).write_bytes(encode_adoption(adoption))
    return folder
