"""How does one program start the others? A MEC and its other users as child processes, ready by handshake.

A child says that it is ready by a line on a pipe of its own; a child that dies instead closes the pipe, so nobody waits
for the dead. Children end with the block that started them.
"""

from __future__ import annotations

import contextlib
import os
import select
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from controller.errors import FailureError
from controller.scenario import Scenario

READY_WAIT_S = 60.0
STOP_WAIT_S = 10.0


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
            self.process.stdin.close()


@contextlib.contextmanager
def running_mec(
    workload: str, *, slowdown: float = 1.0, bind: str = "tcp://127.0.0.1:*", options: tuple[str, ...] = ()
) -> Iterator[RunningMec]:
    """``mecpilot mec`` for the time of a block; ``options`` are further ones of its command line."""
    command = ("-m", "mecpilot", "mec", "--bind", bind, "--workload", workload, "--slowdown", str(slowdown))
    with _child("the MEC", (*command, *options), "--ready-file") as (process, endpoint):
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
    with _child("the load generator", ("-m", "runtime.neighbours", *command), "--ready-file") as (process, _):
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
            env=os.environ | {"OMP_NUM_THREADS": "1"},
        )
    except BaseException:
        os.close(reading)
        raise
    finally:
        os.close(writing)
    try:
        yield process, _ready_line(what, reading)
    finally:
        os.close(reading)
        _stop(process)


def _ready_line(what: str, reading: int) -> str:
    if not select.select([reading], [], [], READY_WAIT_S)[0]:
        raise FailureError(f"{what} was not ready within {READY_WAIT_S:g} s; is the machine overloaded?")
    line = os.read(reading, 4096).decode().strip()
    if not line:
        raise FailureError(f"{what} did not start; its message stands above")
    return line


def _stop(process: subprocess.Popen[bytes]) -> None:
    if process.stdin is not None:
        process.stdin.close()
    process.terminate()
    try:
        process.wait(STOP_WAIT_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def say_ready(ready_file: Path | None, line: str) -> None:
    """The child's side: a line into a pipe, or into a file that is never seen half written."""
    if ready_file is None:
        return
    target = ready_file if ready_file.exists() and not ready_file.is_file() else None
    try:
        partial = target or ready_file.with_name(f"{ready_file.name}.partial")
        partial.write_text(line + "\n")
        if target is None:
            partial.replace(ready_file)
    except OSError as error:
        raise FailureError(
            f"cannot write {ready_file}: {error.strerror}; expected a file that can be written"
        ) from None
