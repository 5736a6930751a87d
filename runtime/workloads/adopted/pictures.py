"""Read the frames of footage by their number: a video or a folder of pictures that may be larger than memory."""

from __future__ import annotations

import hashlib
import os
from collections import OrderedDict
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Protocol

import cv2

from controller.errors import FailureError, UsageError
from runtime.files.masking import shown
from runtime.sources.capture import open_capture
from runtime.sources.footage import letterbox
from runtime.sources.image_folder import IMAGE_SUFFIXES, natural
from runtime.sources.picture_file import Unreadable, read_picture
from runtime.workloads.types import Image

#: Frames that are kept decoded, in bytes: those of the last split where it is not large.
KEPT_BYTES = 256 << 20
_MOST_FILES = 1_000_000


class Pictures(Protocol):
    """Pictures by number, (h, w, 3) blue-green-red of any size."""

    def picture(self, number: int) -> Image:
        """One picture; FailureError when it cannot be read."""
        ...

    def close(self) -> None:
        """Free what is open; may be called twice."""
        ...


def open_pictures(path: Path) -> Pictures:
    """The pictures of a video file or a folder; FailureError or UsageError when it cannot be read."""
    return FolderPictures(path) if os.path.isdir(path) else VideoPictures(path)


class VideoPictures:
    """Owns an open video. Pictures are decoded in their order. A step back is a seek if the time of the picture that it
    finds is that of a picture seen before, else it begins at the first one again.

    FFmpeg's seeking is exact only for some files, and a wrong frame would be compared with another frame's truth.
    """

    def __init__(self, path: Path) -> None:
        self._path, self._next = path, 0  # the picture that comes next
        self._times: dict[float, int] = {}  # number of the picture with that time in the file
        self._capture: Any = self._opened()

    def picture(self, number: int) -> Image:
        if self._capture is None or (number < self._next - 1 and not self._sought(number)):
            self.close()
            self._capture, self._next = self._opened(), 0
        while self._next <= number:
            if not self._capture.grab():
                raise FailureError(f"{shown(self._path)} ends at picture {self._next}; expected picture {number}")
            self._times.setdefault(self._capture.get(cv2.CAP_PROP_POS_MSEC), self._next)
            self._next += 1
        decoded, image = self._capture.retrieve()
        if not decoded:
            raise FailureError(f"{shown(self._path)} cannot be decoded at picture {number}; expected a whole video")
        picture: Image = image
        return picture

    def close(self) -> None:
        if self._capture is not None:
            self._capture.release()
            self._capture = None

    def _sought(self, number: int) -> bool:
        """Go to a picture before that number, or to it; False where it is not certain which one was found."""
        distinct = len(self._times) >= self._next
        if not distinct or not self._capture.set(cv2.CAP_PROP_POS_FRAMES, number) or not self._capture.grab():
            return False
        found = self._times.get(self._capture.get(cv2.CAP_PROP_POS_MSEC))
        if found is None or found > number:
            return False
        self._next = found + 1
        return True

    def _opened(self) -> Any:
        capture = open_capture(os.path.abspath(self._path))
        if capture is None:
            raise FailureError(
                f"the footage {shown(self._path)} cannot be opened; expected a video that OpenCV can decode, or a "
                "folder of pictures"
            )
        return capture


class FolderPictures:
    """The pictures of a folder in natural order; if it has none, those of its sub-folders, as of one per class."""

    def __init__(self, path: Path) -> None:
        self.files = picture_files(path)

    def picture(self, number: int) -> Image:
        if number >= len(self.files):
            raise FailureError(f"there are {len(self.files)} pictures of the footage; expected picture {number}")
        try:
            return read_picture(self.files[number])
        except Unreadable as reason:
            raise FailureError(f"{shown(self.files[number])} {reason}; remove it from the footage") from None

    def close(self) -> None:
        """Nothing is open."""


def picture_files(folder: Path) -> list[Path]:
    """The pictures of a folder, or of its sub-folders ordered by their own names; UsageError where there are none."""
    try:
        own = _pictures_in(folder)
        if not own:
            subfolders = [Path(entry.path) for entry in os.scandir(folder) if entry.is_dir() and entry.name[0] != "."]
            own = [file for subfolder in subfolders for file in _pictures_in(subfolder)]
    except OSError as error:
        raise UsageError(f"the footage {shown(folder)} cannot be read: {error.strerror or error}") from None
    if not own:
        kinds = " ".join(IMAGE_SUFFIXES)
        raise UsageError(f"the footage {shown(folder)} holds no pictures; expected a video, or a folder with {kinds}")
    return sorted(own, key=lambda file: (natural(file.name), natural(file.parent.name)))[:_MOST_FILES]


def _pictures_in(folder: Path) -> list[Path]:
    with os.scandir(folder) as entries:
        return [
            Path(entry.path)
            for entry in entries
            if entry.name[0] != "." and Path(entry.name).suffix.lower() in IMAGE_SUFFIXES and entry.is_file()
        ]


def size_of(path: Path) -> int:
    """Bytes of a video, or of all pictures of a folder."""
    files = picture_files(path) if os.path.isdir(path) else [path]
    return sum(os.path.getsize(file) for file in files)


def digest_of(path: Path) -> str:
    """SHA-256 of a video; of a folder, over the names and digests of its pictures."""
    if not os.path.isdir(path):
        return _digest(path)
    lines = [f"{file.relative_to(path)} {_digest(file)}\n" for file in picture_files(path)]
    return hashlib.sha256("".join(lines).encode(errors="surrogateescape")).hexdigest()


def _digest(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


class FrameReader:
    """Owns the pictures of footage as frames of one shape, and the last of them that fit into ``KEPT_BYTES``."""

    def __init__(self, pictures: Pictures, shape: tuple[int, ...], step: int = 1) -> None:
        """``shape``: of the frames, (h, w) or (h, w, 3). Every ``step``-th picture is a frame."""
        self._pictures, self._shape, self._step = pictures, shape, step
        self._kept: OrderedDict[int, Image] = OrderedDict()
        self._kept_bytes = 0

    def frame(self, number: int) -> Image:
        """The frame with that number; FailureError when it cannot be read."""
        if number in self._kept:
            self._kept.move_to_end(number)
            return self._kept[number]
        frame = letterbox(self._pictures.picture(number * self._step), self._shape)
        self._kept[number] = frame
        self._kept_bytes += frame.nbytes
        while self._kept_bytes > KEPT_BYTES and len(self._kept) > 1:
            self._kept_bytes -= self._kept.popitem(last=False)[1].nbytes
        return frame

    def frames(self, numbers: range) -> Iterator[Image]:
        """Frames one after the other."""
        return (self.frame(number) for number in numbers)

    def close(self) -> None:
        """Close the footage and forget its frames."""
        self._pictures.close()
        self._kept.clear()
        self._kept_bytes = 0
