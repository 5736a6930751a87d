"""A log of records: one JSON line each, written by a thread, so that nothing that is logged ever waits for it.

``add`` only encodes and queues. The thread hands lines to a ``runtime.observe.line_sink``. What that does not take (a
full disk, a FIFO without a reader) waits in the queue and is offered again. When the queue is full, further records are
lost and counted; frames and requests go on.
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

#: Bytes of lines that may wait: some thousand records, minutes of a camera.
QUEUE_BYTES = 4 << 20
#: How long to wait before the sink is tried again after an error, and how often the thread looks for a signal.
RETRY_S = 0.2
#: How long ``close`` waits for what is queued: a reader may never read, a file only waits for a busy machine.
CLOSE_WAIT_S = 0.5
CLOSE_WAIT_FILE_S = 5.0
_BATCH_LINES = 256


@dataclass(frozen=True, slots=True)
class Kind:
    """What the records of a log are, in the words of its messages, and the version of the form of its lines."""

    option: str  # that names the file
    records: str
    work: str  # what goes on when records are lost
    schema: int


#: The fields of both are in docs/outcomes.md. A field that goes, or that changes its meaning, makes a new version.
OUTCOMES = Kind("--outcomes", "outcomes", "frames", schema=1)
REQUESTS = Kind("--requests", "request records", "requests", schema=1)


def _plain(value: Any) -> Any:
    """Numbers of numpy as JSON numbers."""
    if isinstance(value, np.generic | np.ndarray):
        return value.tolist()
    raise TypeError(f"a record holds a {type(value).__name__}; expected what JSON can say")


_ENCODER = msgspec.json.Encoder(enc_hook=_plain)


def line_of(record: Any, kind: Kind) -> bytes:
    """One line of the log: a JSON object of "schema" and the fields of the record, a dataclass."""
    return b'{"schema":%d,' % kind.schema + _ENCODER.encode(record)[1:] + b"\n"


class RecordLog(Generic[Record]):
    """A sink. Owns the queue of lines and the thread that writes them. ``lost`` counts records that were never
    written."""

    def __init__(
        self, target: Path | str, kind: Kind, log: Callable[[str], None], when_ended: Callable[[], None] = lambda: None
    ) -> None:
        """``target``: a file or FIFO, - for standard output. ``log`` takes a line of text when something is wrong.
        ``when_ended`` is called, by the thread, when standard output has no reader any more, and never will."""
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

    # What the loop of a device or a MEC calls ----------------------------------------------------------------

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
            self._log(f"{self._sink.name} takes too little: {self._kind.records} are lost, {self._kind.work} are not")
        self._dropping = full

    def reopen(self) -> None:
        """Have the thread open the file of that name again, for logrotate. Safe in a signal handler."""
        self._reopen = True

    def close(self) -> None:
        """Write what can be written in a short time, count the rest as lost. May be called twice."""
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
                self._open_again()
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
            self._log(f"{self._sink.name} is written again")
        return written

    def _failed(self, error: OSError) -> None:
        if self._is_stdout and error.errno == errno.EPIPE and not self._ended:
            self._ended = True
            self._when_ended()
        if not self._failing:
            waiting = f"{self._kind.records} wait or are lost, {self._kind.work} go on"
            what_now = "nobody reads it any more" if self._ended else waiting
            self._log(f"cannot write {self._sink.name}: {error.strerror}; {what_now}")
        self._failing = True

    def _open_again(self) -> None:
        self._reopen = False
        try:
            self._sink.reopen()
        except OSError as error:
            why = "another process uses it" if isinstance(error, BlockingIOError) else error.strerror
            self._log(f"cannot reopen {self._sink.name}: {why}; writing to the old file")
        else:
            self._log(f"reopened {self._sink.name}")
