"""Render the footage of labels: a video, and the true boxes of its text as COCO JSON beside it.

The pictures are the same for the same seed and length. The bytes of the file depend on the encoder's version.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import cv2
import msgspec
import numpy as np
from numpy.typing import NDArray

from controller.errors import FailureError
from runtime.adoption.recipes.labels.scene import FPS, HEIGHT_PX, WIDTH_PX, Boxes, Scene
from runtime.files.atomic import write_whole

Picture = NDArray[np.uint8]
Write = Callable[[Picture], object]

#: Two minutes: about fifty goods, half of them for training.
SECONDS, SEED = 120.0, 0
#: Rate factor of x264: a good camera's stream.
_RATE_FACTOR = 18
_MJPEG_QUALITY = 95
_NOTE = "Rendered by mecpilot: goods on a belt with printed text. The boxes are those of whole lines of text."


def suffix() -> str:
    """Of the video that can be written here: H.264 needs PyAV; without it Motion JPEG."""
    return ".mp4" if find_spec("av") else ".avi"


def render(
    out: Path,
    seconds: float = SECONDS,
    seed: int = SEED,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Path:
    """Write the video ``out`` and its labels, a file of the same name with the suffix .json; returns that.

    ``out`` ends in .mp4 (H.264, needs PyAV) or .avi (Motion JPEG). Both files appear when they are whole. FailureError
    when they cannot be written.
    """
    scene, boxes = Scene(seconds, seed), []
    partial = out.with_name(f".{os.getpid()}-{out.name}")
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        with _mp4(partial) if out.suffix == ".mp4" else _avi(partial) as write:
            for number in range(scene.frames):
                picture, found = scene.frame(number)
                write(picture)
                boxes.append(found)
                progress(number + 1, scene.frames)
        labels = out.with_suffix(".json")
        write_whole(labels, coco(boxes), "labels")
        partial.replace(out)
    except OSError as error:
        raise FailureError(f"cannot write the footage {out}: {error.strerror or error}") from error
    finally:
        with suppress(OSError):
            partial.unlink(missing_ok=True)
    return labels


def coco(boxes: list[Boxes]) -> bytes:
    """COCO JSON of the boxes [x, y, w, h] of each frame; the id of an image is the number of its frame."""
    images = [
        {"id": number, "file_name": f"{number:06d}.png", "width": WIDTH_PX, "height": HEIGHT_PX}
        for number in range(len(boxes))
    ]
    found = [(number, [round(float(edge), 1) for edge in box]) for number, frame in enumerate(boxes) for box in frame]
    annotations = [
        {"id": i, "image_id": number, "category_id": 1, "bbox": box, "area": round(box[2] * box[3], 1), "iscrowd": 0}
        for i, (number, box) in enumerate(found, start=1)
    ]
    document = {
        "info": {"description": _NOTE},
        "images": images,
        "annotations": annotations,
        "categories": [{"id": 1, "name": "text"}],
    }
    return msgspec.json.encode(document)


@contextmanager
def _mp4(path: Path) -> Iterator[Write]:
    import av

    with av.open(str(path), "w", format="mp4") as container:
        stream: Any = container.add_stream("libx264", rate=round(FPS))
        stream.width, stream.height, stream.pix_fmt = WIDTH_PX, HEIGHT_PX, "yuv420p"
        stream.options = {"crf": str(_RATE_FACTOR), "preset": "veryfast", "threads": "1"}

        def write(picture: Picture) -> None:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="bgr24")))

        yield write
        container.mux(stream.encode(None))


@contextmanager
def _avi(path: Path) -> Iterator[Write]:
    video = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"MJPG"), FPS, (WIDTH_PX, HEIGHT_PX))
    if not video.isOpened():
        raise OSError(f"OpenCV cannot write {path.name}")
    video.set(cv2.VIDEOWRITER_PROP_QUALITY, _MJPEG_QUALITY)
    try:
        yield video.write
    finally:
        video.release()
