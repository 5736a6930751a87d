"""Write a folder whole or not at all."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from controller.errors import FailureError


@contextmanager
def appearing_folder(target: Path) -> Iterator[Path]:
    """A folder beside ``target`` that takes its place when the block ends, and goes when it fails.

    A folder that was there is replaced at the end; until then it stays as it is.
    """
    partial = target.with_name(f".{target.name}.{os.getpid()}.partial")
    try:
        partial.mkdir(parents=True)
    except OSError as error:
        raise FailureError(f"cannot write {target}: {error.strerror or error}; choose another folder") from error
    try:
        yield partial
        _open_to_readers(partial)
        _replace(target, partial)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise


def _open_to_readers(folder: Path) -> None:
    """Whoever may read a new file of this process may read these: some libraries write files for their owner only."""
    mask = os.umask(0)
    os.umask(mask)
    for file in folder.iterdir():
        if file.is_file():
            file.chmod(0o666 & ~mask)


def _replace(target: Path, new: Path) -> None:
    old = target.with_name(f".{target.name}.{os.getpid()}.old")
    if target.exists():
        target.rename(old)
    new.rename(target)
    shutil.rmtree(old, ignore_errors=True)
