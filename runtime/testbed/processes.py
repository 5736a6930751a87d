"""Start a MEC and a load generator as child processes, and wait until they are ready.

A child says that it is ready by a line on a pipe of its own. No fixed wait decides: a child that works is waited for,
with a word to the user now and then; one that died, or that does nothing for long, is reported with its last lines.
Children end with the block that started them, and with their parent, however that ends: they hold one end of a pipe
whose other end is the parent's.
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
#: A child that uses no processor time for so long before it is ready will never be.
STALL_S = 60.0
_LOOK_EVERY_S = 0.5
_SAY_AFTER_S, _SAY_EVERY_S = 5.0, 10.0
_LAST_LINES = 5


@dataclass(frozen=True)
class RunningMec:
    """A MEC process that is bound and warm."""

    endpoint: str
    process: subprocess.Popen[bytes]


@dataclass(frozen=True)
class RunningNeighbours:
    """A load generator that the MEC has welcomed and that waits for the word; or nothing."""

    process: subprocess.Popen[bytes] | None

    def begin(self) -> None:
        """Let the first second of the load begin; may be said twice."""
        if self.process is not None and self.process.stdin is not None:
            with contextlib.suppress(BrokenPipeError):  # it has ended
                self.process.stdin.write(b"begin\n")
                self.process.stdin.flush()


@contextlib.contextmanager
def running_mec(
    workload: str, *, slowdown: float = 1.0, bind: str = "tcp://127.0.0.1:*", options: tuple[str, ...] = ()
) -> Iterator[RunningMec]:
    """``mecpilot mec`` for the time of a block; ``options`` are further ones of its command line."""
    command = ("-m", "mecpilot", "mec", "--bind", bind, "--workload", workload, "--slowdown", str(slowdown))
    with _child("the MEC", (*command, "--end-with-stdin", *options), "--ready-file") as (process, endpoint):
        yield RunningMec(endpoint, process)


@contextlib.contextmanager
def running_neighbours(
    endpoint: str, bundle: str, scenario: Scenario, profile: Path | None = None
) -> Iterator[RunningNeighbours]:
    """Other devices that load the MEC as the scenario says, from ``begin()`` to the end of a block; none at load 0."""
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
    """A Python process and the line by which it says that it is ready."""
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
    """What a child writes to its standard error: shown at once, and the last lines kept."""

    def __init__(self, pipe: IO[bytes]) -> None:
        self._pipe = pipe
        self._last: deque[str] = deque(maxlen=_LAST_LINES)
        self._thread = threading.Thread(target=self._pass_on, daemon=True)
        self._thread.start()

    def _pass_on(self) -> None:
        for line in self._pipe:
            self._last.append(line.decode(errors="replace").strip())
            with contextlib.suppress(OSError):  # ours is closed: the child's lines are still taken
                os.write(2, line)

    def finish(self) -> str:
        """The last lines, once the child has ended."""
        self._thread.join(STOP_WAIT_S)
        if not self._thread.is_alive():
            self._pipe.close()
        return " | ".join(line for line in self._last if line)


def _ready_line(what: str, process: subprocess.Popen[bytes], reading: int, errors: _Errors) -> str:
    patience = _Patience(what, process.pid)
    while not select.select([reading], [], [], _LOOK_EVERY_S)[0]:
        patience.look()
        if process.poll() is not None:
            break
    else:
        if line := os.read(reading, 4096).decode().strip():
            return line
    try:
        code = process.wait(STOP_WAIT_S)
    except subprocess.TimeoutExpired:
        raise FailureError(f"{what} closed its ready file without a word; expected its endpoint") from None
    said = errors.finish() or "it wrote nothing"
    raise FailureError(f"{what} ended with exit code {code} before it was ready; its last lines: {said}")


class _Patience:
    """Waits for a process that works: says so now and then, and gives up one that does nothing."""

    def __init__(self, what: str, pid: int) -> None:
        self._what, self._pid = what, pid
        self._began_s = self._worked_s = time.monotonic()
        self._say_s = self._began_s + _SAY_AFTER_S
        self._ticks = -1

    def look(self) -> None:
        now_s, ticks = time.monotonic(), _processor_ticks(self._pid)
        if ticks is None or ticks != self._ticks:
            self._ticks, self._worked_s = ticks or 0, now_s
        if now_s - self._worked_s > STALL_S:
            raise FailureError(
                f"{self._what} is not ready and has done nothing for {STALL_S:g} s; expected it to start"
            )
        if now_s > self._say_s:
            self._say_s = now_s + _SAY_EVERY_S
            waited_s = now_s - self._began_s
            print(
                f"mecpilot: waiting for {self._what} to be ready: {waited_s:.0f} s so far", file=sys.stderr, flush=True
            )


def _processor_ticks(pid: int) -> int | None:
    """Processor time that a process has used; None where the system does not report it."""
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
    if process.stdin is not None:  # only now: to the child its end means that we are gone
        with contextlib.suppress(BrokenPipeError):
            process.stdin.close()
