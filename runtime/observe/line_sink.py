"""Destinations for the lines of a log: a regular file, a FIFO, or standard output.

A line sink writes whole lines and never drops one: ``write`` returns the number of lines written, and the caller
offers the rest again.

A regular file is opened with ``O_APPEND``, never truncated, and locked for one writer (``flock``). If a crash left half
a line at its end, writing starts on a new line. If the disk is full, a partly written line is removed. A stream is
polled for room before each write, so a reader that does not read blocks nobody.
"""

from __future__ import annotations

import contextlib
import errno
import os
import select
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from controller.errors import FailureError, UsageError
from runtime.files.file_lock import try_lock

#: A pipe that has room takes this number of bytes without blocking (POSIX PIPE_BUF on Linux).
PIPE_BYTES = 4096
#: A write to a regular file ends after the line that reaches this size.
BATCH_BYTES = 256 << 10


class LineSink(Protocol):
    """A destination for whole lines."""

    name: str

    def write(self, lines: Sequence[bytes], wait_s: float) -> int:
        """Write lines in order; returns the number of lines that were written completely.

        A stream waits up to ``wait_s`` seconds for room. OSError when nothing can be written.
        """
        ...

    def reopen(self) -> None:
        """Open the same name again. OSError when that fails; the old file then stays in use."""
        ...

    def close(self) -> None:
        """May be called twice."""
        ...


def open_sink(target: Path | str, option: str) -> LineSink:
    """Open the line sink that the user named; - is standard output. Never blocks, and keeps existing content.

    ``option`` names the option in errors. UsageError when the target cannot be written, FailureError when another
    process uses it.
    """
    if str(target) == "-":
        return StreamSink("standard output", os.dup(1))
    path = Path(target)
    try:
        if path.exists() and not path.is_file() and not path.is_dir():
            if path.is_fifo():
                return FifoSink(path)
            return StreamSink(str(path), os.open(path, os.O_WRONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC))
        return FileSink(path)
    except BlockingIOError:
        raise FailureError(
            f"{option} {path} is in use by another process; stop that one, or name another file"
        ) from None
    except (OSError, ValueError) as error:
        why = getattr(error, "strerror", None) or error
        raise UsageError(f"{option} {path}: {why}; expected a file that can be written") from None


class FileSink:
    """Owns the descriptor and the lock of one regular file."""

    def __init__(self, path: Path) -> None:
        self.name = str(path)
        self._path = path
        self._descriptor = _open_locked(path)
        self._fresh = True  # nothing was written yet, so the last line of the file may be incomplete

    def write(self, lines: Sequence[bytes], wait_s: float) -> int:
        if os.fstat(self._descriptor).st_nlink == 0:
            self.reopen()  # the file was deleted, so lines written to it would be lost
        if self._fresh:
            self._begin_line()
        done, batch = 0, b""
        for line in lines:
            batch += line
            done += 1
            if len(batch) >= BATCH_BYTES:
                break
        written = os.write(self._descriptor, batch)
        return done if written == len(batch) else self._whole_lines(lines, written)

    def _whole_lines(self, lines: Sequence[bytes], written: int) -> int:
        """Remove the part of a line that a full disk accepted; returns the number of whole lines before it."""
        done, size = 0, 0
        while size + len(lines[done]) <= written:
            size += len(lines[done])
            done += 1
        end = os.fstat(self._descriptor).st_size - (written - size)
        if end >= 0:  # negative if another process truncated the file meanwhile
            os.ftruncate(self._descriptor, end)
        if not done:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return done

    def _begin_line(self) -> None:
        size = os.fstat(self._descriptor).st_size
        last = b"\n"
        with contextlib.suppress(OSError):  # the file may not be readable
            last = os.pread(self._descriptor, 1, size - 1) if size else last
        if last != b"\n":
            os.write(self._descriptor, b"\n")
        self._fresh = False

    def reopen(self) -> None:
        with contextlib.suppress(FileNotFoundError):
            if os.path.samestat(self._path.stat(), os.fstat(self._descriptor)):
                return
        descriptor = _open_locked(self._path)
        os.close(self._descriptor)
        self._descriptor, self._fresh = descriptor, True

    def close(self) -> None:
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1


def _open_locked(path: Path) -> int:
    """Open a file for appending and lock it; BlockingIOError when another process holds the lock."""
    flags = os.O_APPEND | os.O_CREAT | os.O_CLOEXEC
    try:
        descriptor = os.open(path, flags | os.O_RDWR, 0o644)
    except PermissionError:
        descriptor = os.open(path, flags | os.O_WRONLY, 0o644)
    if not try_lock(descriptor):
        os.close(descriptor)
        raise BlockingIOError(errno.EWOULDBLOCK, os.strerror(errno.EWOULDBLOCK), str(path))
    return descriptor


class StreamSink:
    """Owns the descriptor of a pipe, terminal or device, and the number of bytes written of the current line."""

    def __init__(self, name: str, descriptor: int) -> None:
        self.name = name
        self._descriptor = descriptor
        self._sent = 0  # bytes written of the first unfinished line

    def write(self, lines: Sequence[bytes], wait_s: float) -> int:
        for done, line in enumerate(lines):
            while self._sent < len(line):
                if not self._has_room(wait_s):
                    return done
                self._sent += self._write_piece(line[self._sent : self._sent + PIPE_BYTES])
            self._sent = 0
        return len(lines)

    def _write_piece(self, piece: bytes) -> int:
        try:
            return os.write(self._descriptor, piece)
        except BlockingIOError:
            return 0

    def _has_room(self, wait_s: float) -> bool:
        poll = select.poll()
        poll.register(self._descriptor, select.POLLOUT)
        return bool(poll.poll(wait_s * 1e3))

    def reopen(self) -> None:
        """Nothing to do: a stream cannot be opened again."""

    def close(self) -> None:
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1


class FifoSink:
    """A named pipe. It is opened when it has a reader, and again for the next reader."""

    def __init__(self, path: Path) -> None:
        self.name = str(path)
        self._path = path
        self._stream: StreamSink | None = None
        if not os.access(path, os.W_OK):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

    def write(self, lines: Sequence[bytes], wait_s: float) -> int:
        if self._stream is None:
            try:
                descriptor = os.open(self._path, os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC)
            except OSError as error:
                raise OSError(
                    error.errno, "it has no reader" if error.errno == errno.ENXIO else error.strerror
                ) from None
            self._stream = StreamSink(self.name, descriptor)
        try:
            return self._stream.write(lines, wait_s)
        except BrokenPipeError:
            self.close()  # the next reader gets the current line from its start
            raise

    def reopen(self) -> None:
        self.close()

    def close(self) -> None:
        if self._stream is not None:
            self._stream.close()
            self._stream = None
