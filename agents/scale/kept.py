"""Keeps the results of finished pieces, so that a command that was interrupted goes on from them when it is repeated.

A result is a file named by its key. A command forgets its results when it ends well, and everybody's after a week.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from controller.errors import FailureError
from runtime.files.atomic import write_whole
from runtime.files.fetch import cache_dir

_WEEK_S = 7 * 24 * 3600.0


class Kept:
    """Owns the files that this command read or wrote in a folder."""

    def __init__(self, folder: Path, say: Callable[[str], None] = lambda _: None) -> None:
        self._folder, self._say = folder, say
        self._ours: set[Path] = set()
        self._found = 0
        self._broken = False

    @property
    def count(self) -> int:
        """Number of results."""
        return len(self._ours)

    def get(self, key: str) -> bytes | None:
        """A result, if it was kept."""
        path = self._folder / key
        try:
            data = path.read_bytes()
        except OSError:
            return None
        if not self._found:
            self._say("going on from what an interrupted run of this command finished")
        self._found += 1
        self._ours.add(path)
        return data

    def put(self, key: str, data: bytes) -> None:
        """Keep a result. Where that is not possible, one line says so, and the work goes on."""
        if self._broken:
            return
        try:
            write_whole(self._folder / key, data, make_folder=True)
        except FailureError as error:
            self._broken = True
            self._say(f"{error.__cause__ or error}: an interrupted run would begin anew")
            return
        self._ours.add(self._folder / key)

    def forget(self) -> None:
        """Remove what this command kept, and what others left behind."""
        with suppress(OSError):
            self._ours |= {path for path in self._folder.iterdir() if time.time() - path.stat().st_mtime > _WEEK_S}
        for path in self._ours:
            with suppress(OSError):
                path.unlink()
        with suppress(OSError):
            self._folder.rmdir()  # unless another command has something there


@contextmanager
def kept_until_done(say: Callable[[str], None], folder: Path | None = None) -> Iterator[Kept]:
    """Keep results in the user's cache (or in ``folder``) until the block ends without an exception."""
    kept = Kept(folder or cache_dir() / "pieces", say)
    try:
        yield kept
    except (KeyboardInterrupt, SystemExit):
        if kept.count:
            say("interrupted; the same command goes on from what is finished")
        raise
    kept.forget()
