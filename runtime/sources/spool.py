"""A temporary video file that keeps the pictures of a camera or pipe for replay after the run."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import cv2

from controller.errors import FailureError
from runtime.sources.shots import Shot, Watch
from runtime.sources.video_file import VideoFile
from runtime.workloads.types import Image


class Spool:
    """Owns a temporary Motion JPEG file. A picture is found by the index that ``write`` returned."""

    FPS = 10.0  # the container needs one; replay ignores it

    def __init__(self, shape: tuple[int, ...]) -> None:
        self._directory = tempfile.TemporaryDirectory(prefix="mecpilot-")
        self._path = str(Path(self._directory.name) / "spool.avi")
        size = (shape[1], shape[0])
        self._writer = cv2.VideoWriter(self._path, cv2.VideoWriter.fourcc(*"MJPG"), self.FPS, size)
        self._count = 0

    def write(self, image: Image) -> int:
        """Append a letterboxed picture, (h, w) or (h, w, 3); returns its index."""
        self._writer.write(image if image.ndim == 3 else cv2.cvtColor(image, cv2.COLOR_GRAY2BGR))
        self._count += 1
        return self._count - 1

    def shots(self) -> Iterator[Shot]:
        """All pictures in order; FailureError when some could not be written. Nothing can be written afterwards."""
        self._writer.release()
        watch = Watch()
        yield from VideoFile(Path(self._path)).shots(0, watch)
        if watch.missing:
            raise FailureError(
                f"{watch.missing} pictures could not be kept in {self._directory.name}; is the disk full?"
            )

    def close(self) -> None:
        """Delete the file."""
        self._writer.release()
        self._directory.cleanup()
