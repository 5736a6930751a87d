"""Run the health check of a release in a process of its own: ``python -m runtime.deploy.check``.

A release that crashes, hangs or fills the memory then does no harm to the process that is to serve it. The child has
low priority, one thread and limits of memory and processor time; where memory runs out the system ends it first. It
prints one line of JSON. It ends with its parent: the kernel kills it when the thread that started it ends (Linux).
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import resource
import signal
import subprocess
import sys
import threading
from pathlib import Path

import msgspec

from controller.errors import MecpilotError
from runtime.decoders.given import given_references
from runtime.deploy.release import RELEASE_FILE, decode_release

#: The check of the campus bundle takes seconds; with low priority on a machine whose cores are busy, a minute.
LIMIT_S = 300.0
#: Virtual memory; torch alone reserves several gigabytes.
_MOST_BYTES = 16 << 30
_MOST_OUTPUT = 64 << 10
_PR_SET_PDEATHSIG = 1


class Verdict(msgspec.Struct, frozen=True):
    """What the child found. ``reason`` is empty if the check was passed."""

    reason: str = ""
    samples: int = 0
    largest_difference: float = 0.0


_STOPPED = Verdict("the health check was stopped")


def check_release(folder: Path, workload: str = "", limit_s: float = LIMIT_S) -> Verdict:
    """The verdict on the release in a folder; ``workload`` is the name of the one to use for a bundle.

    Never raises for what a release does: a child that crashes, hangs or says nonsense is a verdict, too.
    """
    return HealthCheck(workload, limit_s)(folder)


class HealthCheck:
    """Checks one release after the other, until it is stopped from another thread."""

    def __init__(self, workload: str = "", limit_s: float = LIMIT_S) -> None:
        self._workload, self._limit_s = workload, limit_s
        self._lock = threading.Lock()  # guards the two below
        self._child: subprocess.Popen[bytes] | None = None
        self._stopped = False

    def __call__(self, folder: Path) -> Verdict:
        """The verdict on the release in a folder (``check_release``)."""
        try:
            child = self._start(folder)
        except OSError as error:
            return Verdict(f"the health check cannot be started: {error.strerror}")
        if child is None:
            return _STOPPED
        with child:
            try:
                stdout, stderr = child.communicate(timeout=self._limit_s)
            except subprocess.TimeoutExpired:
                return Verdict(f"the health check took more than {self._limit_s:g} s")
            finally:
                self._end()
        if self._stopped:
            return _STOPPED
        try:
            return msgspec.json.decode(stdout[-_MOST_OUTPUT:].strip().rpartition(b"\n")[2], type=Verdict)
        except msgspec.MsgspecError:
            last = stderr[-_MOST_OUTPUT:].decode(errors="replace").strip().rpartition("\n")[2]
            return Verdict(f"the health check ended with code {child.returncode}: {last[:200]}")

    def stop(self) -> None:
        """End the check that runs, if any; later ones are not begun."""
        self._stopped = True
        self._end()

    def _start(self, folder: Path) -> subprocess.Popen[bytes] | None:
        command = [
            sys.executable,
            "-m",
            "runtime.deploy.check",
            str(os.getpid()),
            str(folder),
            self._workload,
            *given_references(),
        ]
        environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
        with self._lock:
            if self._stopped:
                return None
            self._child = subprocess.Popen(
                command,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
            )
            return self._child

    def _end(self) -> None:
        with self._lock:
            if self._child is not None:
                self._child.kill()  # no effect on one that has ended
                self._child = None


def _bind_to(parent: int) -> None:
    """End with the parent, and leave processor and memory to others."""
    if sys.platform.startswith("linux"):
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:  # it ended before that
            os._exit(1)
        with contextlib.suppress(OSError):
            Path("/proc/self/oom_score_adj").write_text("1000")
    os.nice(10)
    resource.setrlimit(resource.RLIMIT_AS, (_MOST_BYTES, _MOST_BYTES))
    resource.setrlimit(resource.RLIMIT_CPU, (int(LIMIT_S), int(LIMIT_S) + 1))


def main(arguments: list[str]) -> int:
    """Check one release and print the verdict.

    Arguments: process id of the parent, folder, workload or "", and code that the user gave to the parent.
    """
    _bind_to(int(arguments[0]))
    folder, workload = Path(arguments[1]), arguments[2]
    try:
        from runtime.decoders.given import give_all
        from runtime.deploy.samples import compare
        from runtime.workloads.registry import get_workload

        give_all(*arguments[3:])
        release = decode_release((folder / RELEASE_FILE).read_bytes())
        found = compare(release, folder, get_workload(workload) if workload else None)
        verdict = Verdict("", found.samples, found.largest_difference)
    except MecpilotError as error:
        verdict = Verdict(str(error))
    except Exception as error:  # noqa: BLE001 - whatever a release makes fail is the verdict on it
        verdict = Verdict(f"{type(error).__name__}: {error}")
    print(msgspec.json.encode(verdict).decode(), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
