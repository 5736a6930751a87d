"""Start a MEC and a load generator as child processes, and wait until they are ready.

A child reports that it is ready by a line on a pipe. There is no fixed time limit: a child that uses the processor is
waited for, with a message now and then; a child that died, or is idle for long, raises an error with its last lines of
output. A child ends with the block that started it. It also ends with its parent, because it reads a pipe whose other
end the parent holds.
"""

from __future__ import annotations

import contextlib
import os
import select
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from controller.errors import FailureError
from controller.scenario import Scenario

STOP_WAIT_S = 10.0
#: A child that uses no processor time for this long before it is ready has hung.
STALL_S = 60.0
_LOOK_EVERY_S = 0.5
_LOG_AFTER_S, _LOG_EVERY_S = 5.0, 10.0
_LAST_LINES = 5


@dataclass(frozen=True)
class RunningMec:
    """A MEC process that listens at its endpoint and is warmed up."""

    endpoint: str
    process: subprocess.Popen[bytes]


@dataclass(frozen=True)
class RunningNeighbours:
    """A connected load generator that waits for ``begin``."""

    process: subprocess.Popen[bytes] | None  # None if the load is 0

    def begin(self) -> None:
        """Start the load; may be called twice."""
        if self.process is not None and self.process.stdin is not None:
            with contextlib.suppress(BrokenPipeError):  # it has ended
                self.process.stdin.write(b"begin\n")
                self.process.stdin.flush()


@contextlib.contextmanager
def running_mec(
    workload: str, *, slowdown: float = 1.0, bind: str = "tcp://127.0.0.1:*", options: tuple[str, ...] = ()
) -> Iterator[RunningMec]:
    """Run ``mecpilot mec`` during a block; ``options`` are added to its command line. FailureError if it fails to
    start."""
    command = ("-m", "mecpilot", "mec", "--bind", bind, "--workload", workload, "--slowdown", str(slowdown))
    with _child("the MEC", (*command, "--end-with-stdin", *options), "--ready-file") as (process, endpoint):
        yield RunningMec(endpoint, process)


@contextlib.contextmanager
def running_neighbours(
    endpoint: str, bundle: str, scenario: Scenario, profile: Path | None = None
) -> Iterator[RunningNeighbours]:
    """Run the load generator of a scenario during a block; the load starts with ``begin()``. No process at load 0."""
    if scenario.mec_load_frac <= 0:
        yield RunningNeighbours(None)
        return
    options = {
        "--mec": endpoint,
        "--bundle": bundle,
        "--load": scenario.mec_load_frac,
        "--slowdown": scenario.mec_slowdown,
        "--frames": scenario.frames,
        "--fps": scenario.fps,
        "--seed": scenario.seed,
    } | ({"--profile": profile} if profile else {})
    command = [str(part) for pair in options.items() for part in pair]
    with _child("the load generator", ("-m", "runtime.testbed.neighbours", *command), "--ready-file") as (process, _):
        yield RunningNeighbours(process)


@contextlib.contextmanager
def _child(what: str, command: tuple[str, ...], ready_option: str) -> Iterator[tuple[subprocess.Popen[bytes], str]]:
    """A Python process, and the line that it wrote to its ready file. ``what`` names it in messages."""
    reading, writing = os.pipe()
    try:
        process = subprocess.Popen(
            [sys.executable, *command, ready_option, f"/dev/fd/{writing}"],
            pass_fds=(writing,),
            stdin=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=os.environ | {"OMP_NUM_THREADS": "1"},
        )
    except BaseException:
        os.close(reading)
        raise
    finally:
        os.close(writing)
    assert process.stderr is not None
    errors = _Errors(process.stderr)
    try:
        yield process, _ready_line(what, process, reading, errors)
    finally:
        os.close(reading)
        _stop(process)
        errors.finish()


class _Errors:
    """Passes on the standard error of a child at once, and keeps its last lines."""

    def __init__(self, pipe: IO[bytes]) -> None:
        self._pipe = pipe
        self._last: deque[str] = deque(maxlen=_LAST_LINES)
        self._thread = threading.Thread(target=self._pass_on, daemon=True)
        self._thread.start()

    def _pass_on(self) -> None:
        for line in self._pipe:
            self._last.append(line.decode(errors="replace").strip())
            with contextlib.suppress(OSError):  # if our standard error is closed, keep reading that of the child
                os.write(2, line)

    def finish(self) -> str:
        """The last lines; call it when the child has ended."""
        self._thread.join(STOP_WAIT_S)
        if not self._thread.is_alive():
            self._pipe.close()
        return " | ".join(line for line in self._last if line)


def _ready_line(what: str, process: subprocess.Popen[bytes], reading: int, errors: _Errors) -> str:
    stall_watch = _StallWatch(what, process.pid)
    while not select.select([reading], [], [], _LOOK_EVERY_S)[0]:
        stall_watch.check()
        if process.poll() is not None:
            break
    else:
        if line := os.read(reading, 4096).decode().strip():
            return line
    try:
        code = process.wait(STOP_WAIT_S)
    except subprocess.TimeoutExpired:
        raise FailureError(f"{what} closed its ready file without writing to it; expected its endpoint") from None
    last_lines = errors.finish() or "it wrote nothing"
    raise FailureError(f"{what} ended with exit code {code} before it was ready; its last lines: {last_lines}")


class _StallWatch:
    """Logs now and then that a process is not ready yet, and fails when it has used no processor time for long."""

    def __init__(self, what: str, pid: int) -> None:
        self._what, self._pid = what, pid
        self._began_s = self._worked_s = time.monotonic()
        self._log_s = self._began_s + _LOG_AFTER_S
        self._ticks = -1

    def check(self) -> None:
        """FailureError when the process has stalled."""
        now_s, ticks = time.monotonic(), _processor_ticks(self._pid)
        if ticks is None or ticks != self._ticks:
            self._ticks, self._worked_s = ticks or 0, now_s
        if now_s - self._worked_s > STALL_S:
            raise FailureError(
                f"{self._what} is not ready and has done nothing for {STALL_S:g} s; expected it to start"
            )
        if now_s > self._log_s:
            self._log_s = now_s + _LOG_EVERY_S
            waited_s = now_s - self._began_s
            print(
                f"mecpilot: waiting for {self._what} to be ready: {waited_s:.0f} s so far", file=sys.stderr, flush=True
            )


def _processor_ticks(pid: int) -> int | None:
    """Processor time that a process has used, in clock ticks; None if the system does not report it."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return int(fields[11]) + int(fields[12])


def _stop(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(STOP_WAIT_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    if process.stdin is not None:  # closed last, because a child takes its end for the end of the parent
        with contextlib.suppress(BrokenPipeError):
            process.stdin.close()
