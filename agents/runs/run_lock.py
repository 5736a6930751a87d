"""Locks a run folder or an evaluation folder: one process writes at a time. The lock ends with its process."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from controller.errors import FailureError, UsageError
from runtime.files.file_lock import try_lock

LOCK_FILE = ".lock"
#: What the holder of a folder of runs does.
SEVERAL = "training several seeds"


@contextmanager
def locked(folder: Path, doing: str = "training") -> Iterator[None]:
    """Hold the folder within the block; create it if necessary.

    UsageError if another process holds it, FailureError if it cannot be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(folder / LOCK_FILE, os.O_RDWR | os.O_CREAT, 0o644)
    except OSError as error:
        raise FailureError(f"cannot write in the folder {folder}: {error.strerror}; choose another --out") from None
    try:
        if not try_lock(descriptor):
            raise _in_use(folder, descriptor)
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, f"{os.getpid()} {doing}".encode(), 0)
        yield
    finally:
        os.close(descriptor)


def refuse_if_locked(folder: Path, doing: str = "") -> None:
    """UsageError if another process holds the folder, or holds it for what is named. Creates nothing."""
    try:
        descriptor = os.open(folder / LOCK_FILE, os.O_RDONLY)
    except OSError:
        return  # no lock file: no training ran here, or the folder is not readable
    try:
        if not try_lock(descriptor) and (not doing or _holder(descriptor)[1] in ("", doing)):
            raise _in_use(folder, descriptor)
    finally:
        os.close(descriptor)


def _holder(descriptor: int) -> tuple[str, str]:
    """Process that wrote the lock file, and what it does; empty if it has not come to that."""
    process, _, doing = os.pread(descriptor, 64, 0).decode("ascii", "replace").partition(" ")
    return process, doing


def _in_use(folder: Path, descriptor: int) -> UsageError:
    process, doing = _holder(descriptor)
    by = f"process {process}" if process else "another process"
    return UsageError(f"{by} is {doing or 'working'} in {folder}; wait until it ends, or choose another --out")
