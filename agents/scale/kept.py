"""Keeps the results of finished pieces, so that a command that was interrupted goes on from them when it is repeated.

A result is a file named by its key: a digest, then the result. A damaged one counts as absent. A command forgets its
results when it ends well, and everybody's after a week.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from controller.errors import FailureError
from runtime.files.atomic import write_whole
from runtime.files.fetch import cache_dir

_DIGEST_BYTES = 16
_WEEK_S = 7 * 24 * 3600.0


class Kept:
    """Owns the files that this command read or wrote in a folder."""

    def __init__(self, folder: Path, say: Callable[[str], None] = lambda _: None) -> None:
        self._folder, self._say = folder, say
        self._ours: set[Path] = set()
        self._found = 0
        self._broken = False  # nothing can be kept
        self._damaged = False  # a file was found that is not what was written

    @property
    def count(self) -> int:
        """Number of results."""
        return len(self._ours)

    def get(self, key: str) -> bytes | None:
        """A result, if it was kept. Where one is damaged, one line says so."""
        path = self._folder / key
        try:
            data = path.read_bytes()
        except OSError:
            return None
        digest, data = data[:_DIGEST_BYTES], data[_DIGEST_BYTES:]
        if digest != _digest(data):
            self._say_damaged(path)
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
            write_whole(self._folder / key, _digest(data) + data, make_folder=True)
        except FailureError as error:
            self._broken = True
            self._say(f"{error.__cause__ or error}: an interrupted run would begin anew")
            return
        self._ours.add(self._folder / key)

    def _say_damaged(self, path: Path) -> None:
        if not self._damaged:
            self._say(f"{path} is damaged; such pieces of an interrupted run are done again")
        self._damaged = True

    def forget(self) -> None:
        """Remove what this command kept, and what others left behind."""
        with suppress(OSError):
            self._ours |= {path for path in self._folder.iterdir() if time.time() - path.stat().st_mtime > _WEEK_S}
        for path in self._ours:
            with suppress(OSError):
                path.unlink()
        with suppress(OSError):
            self._folder.rmdir()  # unless another command has something there


def _digest(data: bytes) -> bytes:
    return hashlib.sha256(data).digest()[:_DIGEST_BYTES]


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
