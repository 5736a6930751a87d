"""A log of records, one JSON line each, written by a thread so that no frame or request waits for the log.

``add`` encodes a record and queues the line. The thread passes lines to a ``runtime.observe.line_sink``. Lines that
cannot be written (a full disk, a FIFO without a reader) stay in the queue and are tried again. When the queue is full,
further records are lost and counted.
"""

from __future__ import annotations

import errno
import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, Generic

import msgspec
import numpy as np

from runtime.observe.line_sink import FileSink, LineSink, open_sink
from runtime.observe.sinks import Record

#: Largest size of the queue: some thousand records, or minutes of a camera.
QUEUE_BYTES = 4 << 20
#: Pause after an error before the sink is tried again, and interval at which the thread checks for ``reopen``.
RETRY_S = 0.2
#: Longest wait of ``close`` for queued lines. The reader of a stream may never read; a file needs only a free machine.
CLOSE_WAIT_S = 0.5
CLOSE_WAIT_FILE_S = 5.0
_BATCH_LINES = 256


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of log: its option, the words of its messages, and the version of its line format."""

    option: str  # of the command line
    records: str  # what the lines are
    work: str  # what continues when records are lost
    schema: int


#: docs/outcomes.md lists the fields of both. Removing a field or changing its meaning requires a new schema version.
OUTCOMES = Kind("--outcomes", "outcomes", "frames", schema=1)
REQUESTS = Kind("--requests", "request records", "requests", schema=1)


def _plain(value: Any) -> Any:
    """Convert numpy values for JSON."""
    if isinstance(value, np.generic | np.ndarray):
        return value.tolist()
    raise TypeError(f"a record holds a {type(value).__name__}; expected a JSON-able value")


_ENCODER = msgspec.json.Encoder(enc_hook=_plain)


def line_of(record: Any, kind: Kind) -> bytes:
    """One line of the log: a JSON object of "schema" and the fields of the record (a dataclass)."""
    return b'{"schema":%d,' % kind.schema + _ENCODER.encode(record)[1:] + b"\n"


class RecordLog(Generic[Record]):
    """A sink that owns the queue of lines and the thread that writes them. ``lost`` counts unwritten records."""

    def __init__(
        self, target: Path | str, kind: Kind, log: Callable[[str], None], when_ended: Callable[[], None] = lambda: None
    ) -> None:
        """``target``: a file or FIFO; - is standard output. ``log`` receives a line of text for each problem.

        The thread calls ``when_ended`` once when the reader of standard output is gone. UsageError or FailureError
        when the target cannot be opened.
        """
        self.lost = 0
        self._kind, self._log, self._when_ended = kind, log, when_ended
        self._sink: LineSink = open_sink(target, kind.option)
        self._is_stdout = str(target) == "-"
        self._ended = False
        self._failing = False
        self._reopen = False
        self._dropping = False
        # Shared with the thread, under the condition:
        self._condition = threading.Condition()
        self._lines: deque[bytes] = deque()
        self._bytes = 0
        self._closing = False
        self._thread = threading.Thread(target=self._run, name=f"log of {kind.records}", daemon=True)
        self._thread.start()

    # Called by the loop of a device or a MEC -----------------------------------------------------------------

    def add(self, record: Record, /) -> None:
        """Queue one line; never blocks and never raises OSError."""
        line = line_of(record, self._kind)
        with self._condition:
            full = self._bytes + len(line) > QUEUE_BYTES
            if full:
                self.lost += 1
            else:
                self._lines.append(line)
                self._bytes += len(line)
                self._condition.notify()
        if full and not self._dropping:
            self._log(f"{self._sink.name} is too slow: {self._kind.records} are lost, {self._kind.work} are not")
        self._dropping = full

    def reopen(self) -> None:
        """Let the thread reopen the file by its name, for logrotate. Safe in a signal handler."""
        self._reopen = True

    def close(self) -> None:
        """Write queued lines for a short time, and count the rest as lost. May be called twice."""
        with self._condition:
            self._closing = True
            self._condition.notify()
        self._thread.join(CLOSE_WAIT_FILE_S if isinstance(self._sink, FileSink) else CLOSE_WAIT_S)
        with self._condition:
            self.lost += len(self._lines)
            self._lines.clear()
            self._bytes = 0

    # The thread ----------------------------------------------------------------------------------------------

    def _run(self) -> None:
        while True:
            with self._condition:
                if not self._lines and not self._closing:
                    self._condition.wait(RETRY_S)
                batch, closing = list(islice(self._lines, _BATCH_LINES)), self._closing
            if self._reopen:
                self._reopen_sink()
            written = self._try(batch) if batch else 0
            with self._condition:
                for line in islice(batch, written if self._lines else 0):
                    self._lines.popleft()
                    self._bytes -= len(line)
                if closing and (not self._lines or self._failing):
                    break
                if self._failing and not self._closing:
                    self._condition.wait_for(lambda: self._closing, RETRY_S)
        self._sink.close()

    def _try(self, batch: list[bytes]) -> int:
        try:
            written = self._sink.write(batch, RETRY_S)
        except OSError as error:
            self._failed(error)
            return 0
        if written and self._failing:
            self._failing = False
            self._log(f"writing to {self._sink.name} again")
        return written

    def _failed(self, error: OSError) -> None:
        if self._is_stdout and error.errno == errno.EPIPE and not self._ended:
            self._ended = True
            self._when_ended()
        if not self._failing:
            waiting = f"{self._kind.records} wait or are lost, {self._kind.work} continue"
            effect = "it has no reader any more" if self._ended else waiting
            self._log(f"cannot write {self._sink.name}: {error.strerror}; {effect}")
        self._failing = True

    def _reopen_sink(self) -> None:
        self._reopen = False
        try:
            self._sink.reopen()
        except OSError as error:
            why = "another process uses it" if isinstance(error, BlockingIOError) else error.strerror
            self._log(f"cannot reopen {self._sink.name}: {why}; writing to the old file")
        else:
            self._log(f"reopened {self._sink.name}")
