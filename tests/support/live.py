"""Starts real devices by their command lines and reads their outcome logs."""

from __future__ import annotations

import contextlib
import io
import json
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import mecpilot
from support.waiting import PATIENCE_S, wait_until

WORKLOAD = "garments"
ROOT = Path(__file__).parents[2]
#: How a frame may end, whatever is tested, because the machine did not run a process in time.
HELD_UP = {"late", "dropped", "fallback"}


@dataclass(frozen=True)
class Finished:
    """A device process that has ended."""

    code: int
    out: str
    err: str
    outcomes: list[dict[str, Any]]

    @property
    def statuses(self) -> Counter[str]:
        return Counter(outcome["status"] for outcome in self.outcomes)

    def check_no_frame_lost(self, frames: int | None = None) -> None:
        """Assert one outcome for each frame, and no traceback."""
        numbers = sorted(outcome["frame"] for outcome in self.outcomes)
        assert numbers == list(range(len(numbers) if frames is None else frames))
        assert "Traceback" not in self.err

    def only(self, status: str) -> Finished:
        """The same with the outcomes of one status; AssertionError if there is none."""
        found = [outcome for outcome in self.outcomes if outcome["status"] == status]
        assert found, self.statuses
        return replace(self, outcomes=found)

    def check_most(self, status: str, frames: int) -> None:
        """Assert one outcome for each frame, at least half of them with this status, and the others only held up."""
        self.check_no_frame_lost(frames)
        assert set(self.statuses) <= {status, *HELD_UP}, self.statuses
        assert self.statuses[status] >= frames / 2, self.statuses


@dataclass
class RunningDevice:
    """A device process and its outcome log."""

    process: subprocess.Popen[str]
    log: Path

    def outcomes_so_far(self) -> int:
        return self.log.read_bytes().count(b"\n") if self.log.exists() else 0

    def stop(self) -> Finished:
        """Send SIGTERM and wait for the end."""
        self.process.send_signal(signal.SIGTERM)
        return self.finish()

    def wait_for_outcomes(self, count: int) -> None:
        """Return when the log has ``count`` lines."""
        self._wait(lambda: self.outcomes_so_far() >= count, f"{count} outcomes")

    def wait_for_status(self, status: str, after: int = 0) -> None:
        """Return when a line of the log, after the first ``after`` ones, has the status."""
        self._wait_for_field("status", status, after)

    def wait_for_mec(self, endpoint: str, after: int = 0) -> None:
        """Return when a line of the log, after the first ``after`` ones, was answered by this one of several MECs."""
        self._wait_for_field("mec", endpoint, after)

    def _wait_for_field(self, name: str, value: str, after: int) -> None:
        wanted = f'"{name}":"{value}"'.encode()

        def found() -> bool:
            return self.log.exists() and any(wanted in line for line in self.log.read_bytes().splitlines()[after:])

        self._wait(found, f"an outcome with {name} {value}")

    def _wait(self, condition: Callable[[], bool], what: str) -> None:
        def reached() -> bool:
            assert self.process.poll() is None, "the device ended early"
            return condition()

        wait_until(reached, what)

    def finish(self) -> Finished:
        out, err = self.process.communicate(timeout=PATIENCE_S)
        return Finished(self.process.returncode, out, err, outcomes_in(self.log))


@contextlib.contextmanager
def device(endpoint: str | list[str], log: Path, **options: object) -> Iterator[RunningDevice]:
    """``mecpilot device`` with one MEC or several, and options by name, underscores for dashes."""
    command = [sys.executable, "-m", "mecpilot", *arguments_of(endpoint, log, options)]
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, stdin=subprocess.DEVNULL, text=True, cwd=ROOT
    )
    try:
        yield RunningDevice(process, log)
    finally:
        process.kill()
        process.wait()


def run_device(endpoint: str | list[str], log: Path, **options: object) -> Finished:
    """Run a device to its end in a separate process."""
    with device(endpoint, log, **options) as running:
        return running.finish()


def run_device_here(endpoint: str | list[str], log: Path, **options: object) -> Finished:
    """Run a device to its end in this process, which saves two seconds of imports."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = mecpilot.main(arguments_of(endpoint, log, options))
    return Finished(code, out.getvalue(), err.getvalue(), outcomes_in(log))


def arguments_of(endpoint: str | list[str], log: Path, options: dict[str, object]) -> list[str]:
    arguments = ["device", "--workload", WORKLOAD]
    for mec in [endpoint] if isinstance(endpoint, str) else endpoint:
        arguments += ["--mec", mec]
    for name, value in ({"outcomes": log} | options).items():
        text = json.dumps(value) if isinstance(value, dict) else str(value)
        arguments += [f"--{name.replace('_', '-')}", text]
    return arguments


def outcomes_in(log: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in log.read_text().splitlines()] if log.is_file() else []


def is_running(pid: int) -> bool:
    """Whether a process runs; one that has ended but was not waited for does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def wait_for_library(process: subprocess.Popen[str], name: str) -> None:
    """Wait until the process has mapped a library, so that its imports have begun."""

    def mapped() -> bool:
        assert process.poll() is None
        return name in Path(f"/proc/{process.pid}/maps").read_text()

    wait_until(mapped, f"the import of {name}")


def wait_for_file(process: subprocess.Popen[str], path: Path) -> str:
    """Wait until the process has written a file; its text."""

    def written() -> bool:
        assert process.poll() is None
        return path.exists()

    wait_until(written, f"the file {path.name}")
    return path.read_text()
