"""A worker process: ``python -m agents.scale.worker DESCRIPTOR`` carries out the pieces that come through a pipe."""

from __future__ import annotations

import os
import queue
import signal
import sys
import threading
import time
from collections.abc import Callable
from multiprocessing.connection import Connection

import msgspec

from agents.scale.pieces import Job, answer

#: Shortest time between two reports of progress.
REPORT_EVERY_S = 0.2


class Task(msgspec.Struct, frozen=True):
    """A piece for a worker."""

    own: bytes
    code: str  # digest of the sender's code
    function: str = ""  # empty: the job is that of the task before
    common: bytes = b""


class Report(msgspec.Struct, frozen=True):
    """How much of its piece a worker has done; with the answer, all of it."""

    done: int = 0
    answer: bytes | None = None


class Throttle:
    """Passes on the newest of many reports of progress, but not more often than ``REPORT_EVERY_S``."""

    def __init__(self, send: Callable[[int], None]) -> None:
        self._send = send
        self._last_s = time.monotonic()

    def __call__(self, done: int) -> None:
        now_s = time.monotonic()
        if now_s - self._last_s >= REPORT_EVERY_S:
            self._last_s = now_s
            self._send(done)


def search_path() -> str:
    """Where this process finds modules, for a worker that it starts: its PYTHONPATH."""
    return os.pathsep.join(path or os.getcwd() for path in sys.path)


def main(descriptor: int) -> None:
    """Serve until the other end of the pipe is closed."""
    for number in (signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)  # a terminal sends these to us too; the process that asks ends us
    connection = Connection(descriptor)
    tasks: queue.SimpleQueue[bytes] = queue.SimpleQueue()
    threading.Thread(target=_read, args=(connection, tasks), daemon=True).start()
    job = Job("", b"")

    def report(done: int) -> None:
        connection.send_bytes(msgspec.msgpack.encode(Report(done)))

    while True:
        task = msgspec.msgpack.decode(tasks.get(), type=Task)
        if task.function:
            job = Job(task.function, task.common)
        found = answer(job, task.own, task.code, Throttle(report))
        connection.send_bytes(msgspec.msgpack.encode(Report(answer=found)))


def _read(connection: Connection, tasks: queue.SimpleQueue[bytes]) -> None:
    """In a thread of its own, so that a worker ends at once when nobody waits for its answer any more."""
    try:
        while True:
            tasks.put(connection.recv_bytes())
    except (EOFError, OSError):
        os._exit(0)


if __name__ == "__main__":
    main(int(sys.argv[1]))
