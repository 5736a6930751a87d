"""Find or download a published data set: several ways in order, each verified, and one error when all fail.

A way is a label and a function that returns a path. The reader of the data set verifies what it finds there; the first
way that passes is used. Nothing is installed system-wide: Debian packages are unpacked into a temporary directory, and
the files that are kept go into the user's cache.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
import time
import urllib.request
import zlib
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

from controller.errors import FailureError, UsageError
from runtime.files.atomic import copy_whole
from runtime.files.file_lock import try_lock

T = TypeVar("T")
Way = tuple[str, Callable[[], Path]]

DOWNLOAD_TIMEOUT_S = 20.0
APT_TIMEOUT_S = 120.0
#: Longer than a successful download takes.
LOCK_WAIT_S = 600.0
_LOOK_EVERY_S = 0.1


def cache_dir() -> Path:
    """The cache folder of the user; it may not exist or not be writable.

    $MECPILOT_CACHE, else $XDG_CACHE_HOME/mecpilot, else ~/.cache/mecpilot, else (without a home) a temporary folder.
    """
    if chosen := os.environ.get("MECPILOT_CACHE"):
        return Path(chosen)
    if base := os.environ.get("XDG_CACHE_HOME"):
        return Path(base) / "mecpilot"
    try:
        return Path.home() / ".cache" / "mecpilot"
    except RuntimeError:  # neither HOME nor an entry in the user database
        return _temporary_cache()


def _temporary_cache() -> Path:
    """A temporary directory that no other user owns."""
    path = Path(os.environ.get("TMPDIR") or "/tmp") / f"mecpilot-{os.getuid()}"
    try:
        is_ours = path.lstat().st_uid == os.getuid()
    except OSError:
        is_ours = True  # it does not exist yet
    return path if is_ours else path.with_name(f"{path.name}-{os.getpid()}")


def check_data_dir(directory: Path | None, files: Collection[str], workload: str) -> None:
    """UsageError unless the directory that the user gives can be read and holds one of ``files`` (if there are any).

    The files are not verified: if they are damaged, ``first_that_works`` goes on to the next way.
    """
    if directory is None:
        return
    if not os.path.isdir(directory):
        raise UsageError(f"--data {directory} is not a directory; expected one that holds the data of {workload}")
    try:
        names = set(os.listdir(directory))
    except OSError as error:
        raise UsageError(f"--data {directory}: {error.strerror}; expected a directory that can be read") from None
    if files and not names & set(files):
        raise UsageError(f"--data {directory} holds no data of {workload}; expected {' or '.join(files)}")


def first_that_works(failure: str, ways: Sequence[Way], read: Callable[[Path], T]) -> T:
    """The result of `read` for the first path that it accepts.

    FailureError, with `failure` and the error of every way, when it accepts none.
    """
    tried = []
    for label, locate in ways:
        try:
            return read(locate())
        except (OSError, EOFError, zlib.error, ValueError, subprocess.SubprocessError) as error:
            tried.append(f"{label}: {_one_line(error)}")
    raise FailureError(f"{failure} Tried: " + "; ".join(tried))


def _one_line(error: Exception) -> str:
    if isinstance(error, subprocess.CalledProcessError):
        detail = (error.stderr or b"").decode(errors="replace").strip().splitlines()
        return f"{error.cmd[0]} exited with {error.returncode}: {detail[-1] if detail else 'no message'}"
    return " ".join(str(error).split()) or type(error).__name__


def from_debian_package(package: str, take: Callable[[Path], Path]) -> Path:
    """Download and unpack a Debian package in a temporary directory; returns `take` of the unpacked root.

    OSError or SubprocessError when a tool is missing or fails.
    """
    for tool in ("apt-get", "dpkg-deb"):
        if shutil.which(tool) is None:
            raise FileNotFoundError(f"{tool} is not installed")
    with tempfile.TemporaryDirectory(prefix="mecpilot-") as work:
        try:
            _run(["apt-get", "download", package], work)
        except subprocess.CalledProcessError:
            # The package lists may be missing. Updating them may be forbidden for this user.
            _run(["apt-get", "update", "-q"], work)
            _run(["apt-get", "download", package], work)
        (archive,) = Path(work).glob("*.deb")
        _run(["dpkg-deb", "-x", str(archive), "unpacked"], work)
        return take(Path(work) / "unpacked")


def _run(command: list[str], cwd: str) -> None:
    subprocess.run(
        command,
        cwd=cwd,
        check=True,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        timeout=APT_TIMEOUT_S,
    )


def from_urls(base: str, names: Iterable[str], take: Callable[[Path], Path]) -> Path:
    """Download every `base + name` into a temporary directory; returns `take` of it. OSError when one fails."""
    with tempfile.TemporaryDirectory(prefix="mecpilot-") as work:
        for name in names:
            with urllib.request.urlopen(f"{base}{name}", timeout=DOWNLOAD_TIMEOUT_S) as reply:
                (Path(work) / name).write_bytes(reply.read())
        return take(Path(work))


@contextmanager
def one_at_a_time(cached: Path) -> Iterator[None]:
    """Hold the lock of a cache directory while a block runs. The system releases it when the process ends.

    The block runs without the lock if the cache cannot be written or locked, or after LOCK_WAIT_S.
    """
    try:
        cached.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        descriptor = os.open(cached.with_name(f".{cached.name}.lock"), os.O_RDWR | os.O_CREAT, 0o600)
    except OSError:
        yield
        return
    try:
        end_s = time.monotonic() + LOCK_WAIT_S
        while not try_lock(descriptor) and time.monotonic() < end_s:
            time.sleep(_LOOK_EVERY_S)  # a blocking call could not be interrupted in a thread
        yield
    finally:
        os.close(descriptor)


def keep(source: Path, target: Path, names: Iterable[str]) -> Path:
    """Copy files into a cache directory, each atomically; returns the directory. OSError when that fails."""
    target.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    target.mkdir(exist_ok=True)
    for name in names:
        copy_whole(source / name, target / name)
    return target


def ways_to(
    given: Path | None,
    system: Path,
    cached: Path,
    package: str,
    url: str,
    names: Sequence[str],
    verify: Callable[[Path], object],
) -> list[Way]:
    """The ways to a data set: ``given``, ``system``, ``cached``, the Debian package that fills ``system``, ``url``.

    Downloaded files (``names``) are verified and kept in the cache, or in a temporary directory if the cache cannot be
    written. One process downloads at a time; the next one uses the kept files.
    """
    spare = _temporary_cache() / cached.name

    def kept(source: Path) -> Path:
        verify(source)
        try:
            return keep(source, cached, names)
        except OSError:
            return keep(source, spare, names)

    def alone(fetch: Callable[[], Path]) -> Path:
        with one_at_a_time(cached):
            try:
                verify(cached)
                return cached  # another process fetched it while this one waited
            except (OSError, EOFError, zlib.error, ValueError):
                return fetch()

    ways: list[Way] = [
        (f"system directory {system}", lambda: system),
        (f"cache {cached}", lambda: cached),
        *([(f"temporary cache {spare}", lambda: spare)] if os.path.isdir(spare) and spare != cached else []),
        (
            f"Debian package {package}",
            lambda: alone(lambda: from_debian_package(package, lambda root: kept(root / system.relative_to("/")))),
        ),
        (f"upstream {url}", lambda: alone(lambda: from_urls(url, names, kept))),
    ]
    return ways if given is None else [(f"given directory {given}", lambda: given), *ways]
