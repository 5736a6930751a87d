"""Worker processes on this machine.

A worker is ``python -m agents.scale.worker`` at the other end of a pipe. It carries out one piece at a time and stays
for the next, because to start one takes seconds. When one dies, its piece goes to a new one.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections import Counter, deque
from collections.abc import Iterator, Sequence
from contextlib import suppress
from multiprocessing.connection import Pipe, wait
from typing import Any

import msgspec

from agents.scale.pieces import Job, code_digest, result_of
from agents.scale.runner import RETRIES, Told
from agents.scale.worker import Report, Task, search_path
from controller.errors import FailureError


class Processes:
    """Owns up to ``count`` workers; they are started when they are needed, and end with the block."""

    def __init__(self, count: int) -> None:
        self._count = count
        self._workers: list[_Worker] = []

    def __enter__(self) -> Processes:
        return self

    def __exit__(self, *_: object) -> None:
        for worker in self._workers:
            worker.end()

    def run(self, job: Job, pieces: Sequence[bytes], reached: Told) -> Iterator[tuple[int, bytes]]:
        """See ``agents.scale.runner.Runner``."""
        try:
            yield from self._run(job, pieces, reached)
        finally:
            self._end_busy()

    def _run(self, job: Job, pieces: Sequence[bytes], reached: Told) -> Iterator[tuple[int, bytes]]:
        self._start(min(self._count, len(pieces)))
        waiting, deaths, left = deque(range(len(pieces))), Counter[int](), len(pieces)
        while left:
            for worker in self._workers:
                if worker.piece is None and waiting:
                    worker.give(waiting.popleft(), job, pieces)
            for worker in self._ready():
                number, answer = worker.take(reached)
                if worker.died:
                    deaths[number] += 1
                    self._replace(worker, deaths[number])
                    reached(number, 0)
                    waiting.appendleft(number)
                elif answer is not None:
                    left -= 1
                    yield number, result_of(answer)

    def _start(self, count: int) -> None:
        while len(self._workers) < count:
            self._workers.append(_Worker())

    def _ready(self) -> list[_Worker]:
        """Workers that have something to say, or died."""
        busy: dict[Any, _Worker] = {w.connection: w for w in self._workers if w.piece is not None}
        return [busy[connection] for connection in wait(list(busy))]

    def _end_busy(self) -> None:
        """After an error: the answers to pieces that still run must not be taken for those of the next run."""
        for worker in self._workers:
            if worker.piece is not None:
                worker.end()
        self._workers = [worker for worker in self._workers if worker.piece is None]

    def _replace(self, worker: _Worker, deaths: int) -> None:
        worker.end()
        if deaths > RETRIES:
            raise FailureError(
                f"a worker process died {deaths} times at the same piece of work ({worker.cause}); expected it to "
                "last: if memory is short, give fewer --jobs"
            )
        self._workers[self._workers.index(worker)] = _Worker()


class _Worker:
    """Owns one process, its pipe, and the number of the piece that it has."""

    def __init__(self) -> None:
        self.connection, theirs = Pipe()
        self.piece: int | None = None
        self.died = False
        self._job: Job | None = None  # that it knows
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-m", "agents.scale.worker", str(theirs.fileno())],
            pass_fds=[theirs.fileno()],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,  # results of a command go there
            env=os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": search_path()},
        )
        theirs.close()

    def give(self, number: int, job: Job, pieces: Sequence[bytes]) -> None:
        """Send a piece; a worker that is dead is noticed when something is taken from it."""
        self.piece = number
        task = Task(pieces[number], code_digest(), *(() if job is self._job else (job.function, job.common)))
        self._job = job
        with suppress(OSError):
            self.connection.send_bytes(msgspec.msgpack.encode(task))

    def take(self, reached: Told) -> tuple[int, bytes | None]:
        """The number of its piece, and the answer when that is what it says. Sets ``died``."""
        assert self.piece is not None
        number = self.piece
        try:
            report = msgspec.msgpack.decode(self.connection.recv_bytes(), type=Report)
        except (EOFError, OSError):
            self.died = True
            return number, None
        if report.answer is None:
            reached(number, report.done)
        else:
            self.piece = None
        return number, report.answer

    @property
    def cause(self) -> str:
        """How it ended."""
        code = self._process.wait()
        return f"exit code {code}" if code >= 0 else f"killed by {signal.Signals(-code).name}"

    def end(self) -> None:
        """End it at once; may be called twice."""
        self.connection.close()
        self._process.kill()
        self._process.wait()
