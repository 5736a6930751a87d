"""How do outcomes reach their log without ever holding up a frame? One JSON line each, through a queue and a thread.

``write`` only encodes and queues. The thread hands lines to the sink (``runtime.observe.line_sink``); what the sink
does not
take (a full disk, a FIFO without a reader) waits in the queue and is offered again. When the queue is full, further
outcomes are lost and counted; frames go on.
"""

from __future__ import annotations

import errno
import threading
from collections import deque
from collections.abc import Callable
from itertools import islice
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from controller.records import Outcome
from runtime.observe.line_sink import FileSink, LineSink, open_sink

#: Bytes of lines that may wait: some thousand outcomes, minutes of a camera.
QUEUE_BYTES = 4 << 20
#: How long to wait before the sink is tried again after an error, and how often the thread looks for a signal.
RETRY_S = 0.2
#: How long ``close`` waits for what is queued: a reader may never read, a file only waits for a busy machine.
CLOSE_WAIT_S = 0.5
CLOSE_WAIT_FILE_S = 5.0
_BATCH_LINES = 256


def _plain(value: Any) -> Any:
    """Numbers of numpy as JSON numbers."""
    if isinstance(value, np.generic | np.ndarray):
        return value.tolist()
    raise TypeError(f"an outcome holds a {type(value).__name__}; expected what JSON can say")


_ENCODER = msgspec.json.Encoder(enc_hook=_plain)


def outcome_line(outcome: Outcome) -> bytes:
    """One line of the log: the fields of ``Outcome`` as a JSON object."""
    return _ENCODER.encode(outcome) + b"\n"


class OutcomeLog:
    """Owns the queue of lines and the thread that writes them. ``lost`` counts outcomes that were never written."""

    def __init__(self, target: Path | str, complain: Callable[[str], None]) -> None:
        self.lost = 0
        self.ended = False  # standard output has no reader any more, and never will
        self._complain = complain
        self._sink: LineSink = open_sink(target, "--outcomes")
        self._is_stdout = str(target) == "-"
        self._failing = False
        self._reopen = False
        self._dropping = False
        # Shared with the thread, under the condition:
        self._condition = threading.Condition()
        self._lines: deque[bytes] = deque()
        self._bytes = 0
        self._closing = False
        self._thread = threading.Thread(target=self._run, name="outcome log", daemon=True)
        self._thread.start()

    # What the frame loop calls -------------------------------------------------------------------------------

    def write(self, outcome: Outcome) -> None:
        """Queue one line; never blocks and never raises OSError."""
        line = outcome_line(outcome)
        with self._condition:
            full = self._bytes + len(line) > QUEUE_BYTES
            if full:
                self.lost += 1
            else:
                self._lines.append(line)
                self._bytes += len(line)
                self._condition.notify()
        if full and not self._dropping:
            self._complain(f"{self._sink.name} takes too little: outcomes are lost, frames are not")
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
            self._complain(f"{self._sink.name} is written again")
        return written

    def _failed(self, error: OSError) -> None:
        self.ended = self._is_stdout and error.errno == errno.EPIPE
        if not self._failing:
            what_now = "nobody reads it any more" if self.ended else "outcomes wait or are lost, frames go on"
            self._complain(f"cannot write {self._sink.name}: {error.strerror}; {what_now}")
        self._failing = True

    def _open_again(self) -> None:
        self._reopen = False
        try:
            self._sink.reopen()
        except OSError as error:
            why = "another process uses it" if isinstance(error, BlockingIOError) else error.strerror
            self._complain(f"cannot reopen {self._sink.name}: {why}; writing to the old file")
        else:
            self._complain(f"reopened {self._sink.name}")
