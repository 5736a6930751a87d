"""Write files atomically, and check before a long run that a path can be written.

The bytes go into a partial file beside the target and are synced to the disk; then the partial file is renamed. A
crash, a full disk or Ctrl-C leaves either the old file or the new one. A device, a FIFO or ``/dev/stdout`` cannot be
replaced by a rename, so it is written directly.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import stat
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import BinaryIO

from controller.errors import FailureError, UsageError

STDOUT = "-"


def write_whole(
    path: Path, data: bytes, what: str = "", way_out: str = "choose another file", *, make_folder: bool = False
) -> None:
    """Write one file atomically; FailureError in one line when that is not possible.

    ``what`` names the kind of file in the error and ``way_out`` says what the user can do. With ``make_folder``,
    missing folders above the file are made.
    """
    try:
        if make_folder:
            path.parent.mkdir(parents=True, exist_ok=True)
        _write(Path(os.path.realpath(path)), path, data)
    except OSError as error:
        shown = f"{what} {path}" if what else str(path)
        raise FailureError(f"cannot write {shown}: {error.strerror or error}; {way_out}") from error


def _write(target: Path, given: Path, data: bytes) -> None:
    """``target`` is ``given`` with links resolved, so that a link stays a link."""
    mode = _mode(given)
    if mode is not None and not stat.S_ISREG(mode):
        with given.open("wb", buffering=0) as stream:
            _write_all(stream.fileno(), data)
        return
    with _appearing(target) as stream:
        if mode is not None:
            os.fchmod(stream.fileno(), stat.S_IMODE(mode))
        _write_all(stream.fileno(), data)


def copy_whole(source: Path, target: Path) -> None:
    """Copy a file of any size atomically; OSError when that is not possible."""
    with source.open("rb") as original, _appearing(target) as stream:
        shutil.copyfileobj(original, stream)


@contextlib.contextmanager
def _appearing(target: Path) -> Iterator[BinaryIO]:
    """An open file that is renamed to ``target`` when the block ends without an exception."""
    with appearing(target) as partial, partial.open("wb", buffering=0) as stream:
        yield stream


@contextlib.contextmanager
def appearing(target: Path) -> Iterator[Path]:
    """The path of a partial file, for libraries that open it themselves.

    It is renamed to ``target`` when the block ends without an exception, and removed otherwise. It has the suffix of
    the target, because some libraries choose the format by it.
    """
    partial = target.with_name(f".{target.stem[:200]}.{os.getpid()}.partial{target.suffix[:20]}")
    try:
        yield partial
        _sync(partial, os.O_RDONLY)
        partial.replace(target)
        sync_folder(target.parent)
    except BaseException:
        with contextlib.suppress(OSError):
            partial.unlink()
        raise


def sync_folder(folder: Path) -> None:
    """Sync a folder to the disk, which makes renames in it permanent."""
    _sync(folder, os.O_RDONLY | os.O_DIRECTORY)


def _sync(path: Path, flags: int) -> None:
    descriptor = os.open(path, flags)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _mode(path: Path) -> int | None:
    try:
        return path.stat().st_mode
    except FileNotFoundError:
        return None


def _write_all(descriptor: int, data: bytes) -> None:
    left = memoryview(data)
    while left:
        left = left[os.write(descriptor, left) :]


def check_writable(path: Path | str | None, option: str, *, make_folder: bool = False) -> None:
    """UsageError unless a file of that name can be written. Changes nothing on the disk; None and - always pass.

    With ``make_folder``, the folders above the file may be missing, because the writer makes them.
    """
    if path is None or str(path) == STDOUT:
        return
    if why := _obstacle(Path(path), make_folder):
        raise UsageError(f"{option} {path}: {why}; expected a file that can be written")


def _obstacle(path: Path, make_folder: bool) -> str:
    """Why a file cannot be written at a path; "" when it can."""
    if "\0" in str(path):
        return "embedded null byte"
    try:
        if path.is_dir():
            return "Is a directory"
        if path.exists():
            return "" if os.access(path, os.W_OK) else "Permission denied"
        folder = path.absolute().parent
        while make_folder and not folder.exists():
            folder = folder.parent
        if not folder.exists():
            return "No such file or directory"
        if not folder.is_dir():
            return "Not a directory"
        return _folder_obstacle(folder)
    except OSError as error:
        return error.strerror or str(error)


def _folder_obstacle(folder: Path) -> str:
    if os.access(folder, os.W_OK | os.X_OK):
        return ""
    return "Read-only file system" if os.statvfs(folder).f_flag & os.ST_RDONLY else "Permission denied"


def check_apart(outputs: Mapping[str, Path | str | None], inputs: Mapping[str, Path | str | None]) -> None:
    """UsageError when two options name the same file and one of them is written. None: the option was not given."""
    seen: dict[str, str] = {_identity(path): option for option, path in inputs.items() if path is not None}
    for option, path in outputs.items():
        if path is None or _is_sink(path):
            continue
        other = seen.setdefault(_identity(path), option)
        if other != option:
            raise UsageError(f"{other} and {option} both name {path}; expected two different files")


def _identity(path: Path | str) -> str:
    """A key that is equal for all names of one file."""
    if str(path) == STDOUT:
        return STDOUT
    try:
        found = os.stat(path)
    except (OSError, ValueError):
        return os.path.realpath(path)
    return f"{found.st_dev}:{found.st_ino}"


def _is_sink(path: Path | str) -> bool:
    """Whether the path is a character device (/dev/null, a terminal), where writing replaces nothing."""
    try:
        mode = _mode(Path(path))
    except (OSError, ValueError):
        return False
    return mode is not None and stat.S_ISCHR(mode)
