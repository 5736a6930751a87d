"""Read an encoded stream from a FIFO or standard input.

The pipe is polled, so a silent or absent writer blocks nothing. A sequence of JPEGs (from many cameras, or a
``multipart/x-mixed-replace`` stream) is cut into pictures here, which adds no delay. Any other format goes to OpenCV
through a second pipe; closing that pipe ends OpenCV's wait. No picture is left out: a writer that is faster than the
frames are played has to wait.
"""

from __future__ import annotations

import os
import select
import stat
import sys
import threading
from collections.abc import Generator, Iterator
from typing import Any

from controller.errors import FailureError
from runtime.files.masking import shown
from runtime.sources.capture import CAMERA_WAIT_S, ENDLESS_S, open_capture
from runtime.sources.picture_file import Unreadable, decode
from runtime.sources.shots import Shot, Watch
from runtime.sources.video_file import Tally, grabbed

STDIN = "-"
STDIN_NAME = "standard input"
EXPECTED = "MPEG-TS, Matroska, Motion JPEG or a sequence of JPEGs"
POLL_MS = 50
CHUNK_BYTES = 1 << 16
#: Largest JPEG that is accepted, in bytes.
LONGEST_JPEG_BYTES = 64 << 20
SOI, EOI = b"\xff\xd8\xff", b"\xff\xd9"


class PipeStream:
    """A FIFO or standard input that carries MPEG-TS, Matroska, Motion JPEG or a sequence of JPEGs."""

    live = False
    once = True
    fps: float | None = None
    open_wait_s = 0.0

    def __init__(self, path: str) -> None:
        self._path = path
        self.name = STDIN_NAME if path == STDIN else shown(path)
        if path == STDIN:
            _check_stdin()

    def shots(self, first: int, watch: Watch) -> Generator[Shot, None, None]:
        try:
            descriptor = os.dup(0) if self._path == STDIN else os.open(self._path, os.O_RDONLY | os.O_NONBLOCK)
        except OSError as error:
            raise FailureError(f"source {self.name} cannot be read: {error.strerror or error}") from None
        chunks, found = _Chunks(descriptor, self.name, watch), False
        try:
            for shot in self._jpegs(chunks, watch) if chunks.begin_with_jpeg() else self._decoded(chunks, watch):
                found = True
                if shot.index >= first:
                    yield shot
        finally:
            os.close(descriptor)
        if chunks.failure or not (found or watch.stopped):
            raise FailureError(chunks.failure or f"source {self.name} gave no picture; expected {EXPECTED}")

    def _jpegs(self, chunks: _Chunks, watch: Watch) -> Iterator[Shot]:
        for index, data in enumerate(cut_jpegs(chunks)):
            try:
                image = decode(data)
            except Unreadable as reason:
                watch.skip(f"picture skipped: number {index} of {self.name} {reason}")
            else:
                yield Shot(image, index)

    def _decoded(self, chunks: _Chunks, watch: Watch) -> Iterator[Shot]:
        relay = _Relay(chunks)
        try:
            capture = open_capture(relay.name, ENDLESS_S)
            if capture is not None:
                yield from self._read_all(capture, watch)
        finally:
            relay.close()

    def _read_all(self, capture: Any, watch: Watch) -> Iterator[Shot]:
        tally = Tally(capture)
        try:
            for index, at_s in enumerate(grabbed(capture, tally, watch)):
                decoded, image = capture.retrieve()
                if decoded:
                    yield Shot(image, index, at_s)
        finally:
            capture.release()
            tally.report(self.name, watch)


def _check_stdin() -> None:
    expected = "expected an encoded stream: ffmpeg ... -f mpegts - | mecpilot device --source -"
    if sys.stdin is None:
        raise FailureError(f"source -: standard input is closed; {expected}")
    if os.isatty(0) or stat.S_ISCHR(os.fstat(0).st_mode):
        raise FailureError(f"source -: nothing is piped into standard input; {expected}")


class _Chunks:
    """Bytes from a pipe as they arrive, until the writer closes, the watch stops, or the pipe is silent too long."""

    def __init__(self, descriptor: int, name: str, watch: Watch) -> None:
        self._descriptor, self._name, self._watch = descriptor, name, watch
        self._poll = select.poll()
        self._poll.register(descriptor, select.POLLIN)
        self._peeked = b""
        self._closed = False
        self.failure = ""

    def begin_with_jpeg(self) -> bool:
        """Whether the first bytes are those of a JPEG or a multipart stream. They stay in the stream."""
        while len(self._peeked) < len(SOI) and (chunk := self._next()):
            self._peeked += chunk
        return self._peeked.lstrip().startswith((SOI, b"--"))  # "--": the boundary of a multipart stream

    def close(self) -> None:
        """End the iteration; may be called from another thread."""
        self._closed = True

    def __iter__(self) -> Iterator[bytes]:
        peeked, self._peeked = self._peeked, b""
        if peeked:
            yield peeked
        while chunk := self._next():
            yield chunk

    def _next(self) -> bytes:
        limit_s = max(self._watch.retry_s, CAMERA_WAIT_S)
        heard_s = self._watch.clock()
        while not self._watch.stopped and not self._closed:
            if self._poll.poll(POLL_MS):
                self._watch.heard()
                try:
                    return os.read(self._descriptor, CHUNK_BYTES)
                except BlockingIOError:
                    continue
            if self._watch.clock() - heard_s > limit_s:
                self.failure = f"source {self._name} sent nothing for {limit_s:g} s (--source-retry or retry_s)"
                break
        return b""


def cut_jpegs(chunks: Iterator[bytes] | _Chunks) -> Iterator[bytes]:
    """Every whole JPEG, without the bytes between them."""
    buffer = bytearray()
    for chunk in chunks:
        buffer += chunk
        while (start := buffer.find(SOI)) >= 0:
            end = _jpeg_end(buffer, start)
            if end is None and len(buffer) - start <= LONGEST_JPEG_BYTES:
                break
            if end is not None:
                yield bytes(buffer[start:end])
            del buffer[: len(buffer) if end is None else end]
        else:
            del buffer[: -len(SOI)]


def _jpeg_end(data: bytearray, start: int) -> int | None:
    """End of the picture that begins at ``start``, or start of the next one if it breaks off; None if more bytes are
    needed.

    Header segments are skipped by their lengths, because a thumbnail in one of them has markers of its own.
    """
    at = start + 2
    while at + 4 <= len(data) and data[at] == 0xFF and data[at + 1] != 0xDA:
        padding = data[at + 1] == 0xFF
        at += 1 if padding else 2 + int.from_bytes(data[at + 2 : at + 4], "big")
    in_headers = at < len(data) and data[at] != 0xFF
    end, broken_off = data.find(EOI, at), data.find(SOI, start + 2 if in_headers else at)
    if 0 <= broken_off < end or end < 0 <= broken_off:
        return broken_off
    return None if end < 0 else end + len(EOI)


class _Relay:
    """Owns a pipe between a thread that fills it and a library that reads it."""

    def __init__(self, chunks: _Chunks) -> None:
        self._chunks = chunks
        self._read_end, self._write_end = os.pipe()
        self._thread = threading.Thread(target=self._fill, name="source pipe", daemon=True)
        self._thread.start()

    @property
    def name(self) -> str:
        return f"/proc/self/fd/{self._read_end}"

    def _fill(self) -> None:
        try:
            for chunk in self._chunks:
                while chunk:
                    chunk = chunk[os.write(self._write_end, chunk) :]
        except OSError:
            pass  # the reader is gone
        finally:
            os.close(self._write_end)

    def close(self) -> None:
        """End the thread at its next poll or write, and wait for it."""
        self._chunks.close()
        os.close(self._read_end)
        self._thread.join()
