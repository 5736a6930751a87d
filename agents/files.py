"""How is a file written so that neither a crash nor a full disk leaves half of it? Under another name, then renamed."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

from controller.errors import FailureError


def write_whole(path: Path, data: bytes) -> None:
    """Write the file whole or not at all, so that it is on the disk when this returns."""
    partial = path.with_name(path.name + ".partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with partial.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
        sync_folder(path.parent)
    except OSError as error:
        with suppress(OSError):
            partial.unlink(missing_ok=True)
        raise FailureError(f"cannot write {path}: {error.strerror}; free some space or choose another folder") from None


def sync_folder(folder: Path) -> None:
    """Put renames in a folder on the disk."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
