"""Run the health check of a release in a process of its own: ``python -m runtime.deploy.check FOLDER [WORKLOAD]``.

A release that crashes, hangs or fills the memory then does no harm to the process that is to serve it. The child has
low priority, one thread and a limit of memory; it prints one line of JSON.
"""

from __future__ import annotations

import os
import resource
import subprocess
import sys
from pathlib import Path

import msgspec

from controller.errors import MecpilotError
from runtime.deploy.release import RELEASE_FILE, decode_release

#: The check of the campus bundle takes seconds; with low priority on a machine whose cores are busy, a minute.
LIMIT_S = 300.0
#: Virtual memory; torch alone reserves several gigabytes.
_MOST_BYTES = 16 << 30
_MOST_OUTPUT = 64 << 10


class Verdict(msgspec.Struct, frozen=True):
    """What the child found. ``reason`` is empty if the check was passed."""

    reason: str = ""
    samples: int = 0
    largest_difference: float = 0.0


def check_release(folder: Path, workload: str = "", limit_s: float = LIMIT_S) -> Verdict:
    """The verdict on the release in a folder; ``workload`` is the name of the one to use for a bundle.

    Never raises for what a release does: a child that crashes, hangs or says nonsense is a verdict, too.
    """
    command = [sys.executable, "-m", "runtime.deploy.check", str(folder), *([workload] if workload else [])]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    try:
        done = subprocess.run(
            command, env=environment, stdin=subprocess.DEVNULL, capture_output=True, timeout=limit_s, check=False
        )
    except subprocess.TimeoutExpired:
        return Verdict(f"the health check took more than {limit_s:g} s")
    except OSError as error:
        return Verdict(f"the health check cannot be started: {error.strerror}")
    try:
        return msgspec.json.decode(done.stdout[-_MOST_OUTPUT:].strip().rpartition(b"\n")[2], type=Verdict)
    except msgspec.MsgspecError:
        last = done.stderr[-_MOST_OUTPUT:].decode(errors="replace").strip().rpartition("\n")[2]
        return Verdict(f"the health check ended with code {done.returncode}: {last[:200]}")


def main(arguments: list[str]) -> int:
    """Check one release and print the verdict."""
    os.nice(10)
    resource.setrlimit(resource.RLIMIT_AS, (_MOST_BYTES, _MOST_BYTES))
    folder = Path(arguments[0])
    try:
        from runtime.deploy.samples import compare
        from runtime.workloads.registry import get_workload

        release = decode_release((folder / RELEASE_FILE).read_bytes())
        found = compare(release, folder, get_workload(arguments[1]) if len(arguments) > 1 else None)
        verdict = Verdict("", found.samples, found.largest_difference)
    except MecpilotError as error:
        verdict = Verdict(str(error))
    except Exception as error:  # noqa: BLE001 - whatever a release makes fail is the verdict on it
        verdict = Verdict(f"{type(error).__name__}: {error}")
    print(msgspec.json.encode(verdict).decode(), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
