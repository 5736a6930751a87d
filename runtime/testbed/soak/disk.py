"""A disk for logs that can be filled: a small tmpfs where one can be mounted, else a limit on the size of files.

The limit is what a user without root can set: every write to a file then fails, with "File too large" in place of "No
space left on device". Both reach the daemon as a write that fails.
"""

from __future__ import annotations

import contextlib
import resource
import subprocess
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

_SIZE = "16m"
_PIECE = bytes(1 << 16)


class TmpfsDisk:
    """A tmpfs, full as long as a ballast file takes all that is left."""

    what = "tmpfs, no space left"

    def __init__(self, folder: Path) -> None:
        self._ballast = folder / "ballast"

    def fill(self) -> None:
        with contextlib.suppress(OSError), self._ballast.open("ab", buffering=0) as file:
            while True:
                file.write(_PIECE)
        with contextlib.suppress(OSError), self._ballast.open("ab", buffering=0) as file:
            while True:
                file.write(b"\0")

    def free(self) -> None:
        self._ballast.unlink(missing_ok=True)


class LimitedDisk:
    """Processes that may not write to files for a time."""

    what = "limit on the size of files"

    def __init__(self, pids: Callable[[], Iterable[int]]) -> None:
        self._pids = pids
        self._before: dict[int, int] = {}  # soft limits, by pid

    def fill(self) -> None:
        """Writes fail in all processes that there are by now."""
        for pid in self._pids():
            with contextlib.suppress(ProcessLookupError):
                soft, most = resource.prlimit(pid, resource.RLIMIT_FSIZE)
                self._before.setdefault(pid, soft)
                resource.prlimit(pid, resource.RLIMIT_FSIZE, (0, most))

    def free(self) -> None:
        """Each of these processes has its limit of before."""
        for pid, soft in self._before.items():
            with contextlib.suppress(ProcessLookupError):
                _, most = resource.prlimit(pid, resource.RLIMIT_FSIZE)
                resource.prlimit(pid, resource.RLIMIT_FSIZE, (soft, most))
        self._before.clear()


@contextlib.contextmanager
def disk_for_logs(folder: Path, pids: Callable[[], Iterable[int]]) -> Iterator[TmpfsDisk | LimitedDisk]:
    """A disk at ``folder``, an empty one, for the time of a block; ``pids`` are the processes that write to it."""
    mount = ["mount", "-t", "tmpfs", "-o", f"size={_SIZE},mode=700", "mecpilot-soak", str(folder)]
    try:
        mounted = subprocess.run(mount, capture_output=True, check=False).returncode == 0
    except OSError:
        mounted = False
    if not mounted:
        yield LimitedDisk(pids)
        return
    try:
        yield TmpfsDisk(folder)
    finally:
        subprocess.run(["umount", "-l", str(folder)], capture_output=True, check=False)
