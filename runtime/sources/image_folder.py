"""Read a folder of images in natural order. Unreadable files are logged, counted and skipped."""

from __future__ import annotations

import os
import re
from collections.abc import Generator
from pathlib import Path

from controller.errors import FailureError
from runtime.files.masking import shown
from runtime.sources.picture_file import Unreadable, read_picture
from runtime.sources.shots import Shot, Watch

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".webp", ".tif", ".tiff", ".ppm", ".pgm")


class ImageFolder:
    """The images of a folder; the index of a picture is its file's position in the ordered list."""

    live = False
    once = False
    fps: float | None = None
    open_wait_s = 2.0

    def __init__(self, path: Path) -> None:
        self.name = shown(path)
        try:
            with os.scandir(path) as entries:
                names = [entry.name for entry in entries if _is_image(entry)]
        except OSError as error:
            raise FailureError(f"source {self.name} cannot be read: {error.strerror or error}") from None
        self._paths = [path / name for name in sorted(names, key=natural)]
        if not self._paths:
            kinds = " ".join(IMAGE_SUFFIXES)
            raise FailureError(f"source {self.name} holds no images; expected a folder with some of: {kinds}")

    def shots(self, first: int, watch: Watch) -> Generator[Shot, None, None]:
        found = False
        unread: list[str] = []  # logged once a picture was read; if none can be read, the error says so instead
        for index, path in enumerate(self._paths[first:], start=first):
            if watch.stopped:
                return
            try:
                image = read_picture(path)
            except Unreadable as reason:
                unread.append(f"{shown(path)} {reason}")
                watch.heard()
            else:
                found = True
                yield Shot(image, index)
            while found and unread:
                watch.skip(f"picture skipped: {unread.pop(0)}")
        if unread:
            raise FailureError(f"source {self.name}: none of its {len(unread)} pictures can be read; {unread[0]}")


def _is_image(entry: os.DirEntry[str]) -> bool:
    hidden = entry.name.startswith(".")
    return not hidden and Path(entry.name).suffix.lower() in IMAGE_SUFFIXES and entry.is_file()


def natural(name: str) -> tuple[list[str | int], str]:
    """A sort key that puts 2 before 10 and ignores case."""
    parts = re.split(r"(\d+)", name.casefold())
    return [int(part) if i % 2 else part for i, part in enumerate(parts)], name
