"""Measures the time from the start of a process until it is ready, and until its first answer.

``python -m benchmarks.bench_ready`` starts ``mecpilot mec`` and ``mecpilot device`` for each workload. A MEC is ready
when it writes its ready file; its first answer is the reply to a full offload, sent as soon as it is ready. A device is
ready when it captures its first frame; its first answer is that frame's outcome, with a MEC that is already running.
Interpreter and imports are included. "Cold" is the first start in a fresh copy of mecpilot, without compiled modules
(the page cache stays as it is, because only root can clear it). "Warm" is the median of the starts after that.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from controller.errors import FailureError
from runtime.bundles.bundle import Bundle, open_bundle
from runtime.inference.streams import encode_alone
from runtime.link.dealer import Dealer
from runtime.protocol import wire
from runtime.testbed.processes import running_mec

BUDGET_S = 3.0
WORKLOADS = ("garments", "campus")
ROOT = Path(__file__).parent.parent
PARTS = ("controller", "runtime", "envs", "agents", "mecpilot.py")
_HELLO_EVERY_S = 0.05


@dataclass(frozen=True)
class Start:
    """Seconds from the start of a process."""

    ready_s: float
    answer_s: float


@contextmanager
def fresh_copy() -> Iterator[Path]:
    """A copy of mecpilot without compiled modules, as after a clone."""
    with tempfile.TemporaryDirectory() as folder:
        for part in PARTS:
            source, target = ROOT / part, Path(folder) / part
            if source.is_dir():
                shutil.copytree(source, target, ignore=shutil.ignore_patterns("__pycache__"))
            else:
                shutil.copy(source, target)
        yield Path(folder)


@contextmanager
def command(root: Path, *arguments: str) -> Iterator[tuple[subprocess.Popen[bytes], float]]:
    """A running sub-command of the copy in ``root``, and its start time."""
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(root)}
    began_s = time.perf_counter()
    process = subprocess.Popen(
        [sys.executable, "-m", "mecpilot", *arguments],
        cwd=root,
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        yield process, began_s
    finally:
        process.terminate()
        process.wait()


def until(happened: Callable[[], bool], process: subprocess.Popen[bytes]) -> float:
    """Time at which ``happened()`` becomes true. FailureError if the process fails before that."""
    while not happened():
        if process.poll() not in (None, 0):
            raise FailureError(f"{process.args} ended with exit code {process.returncode}")
        time.sleep(0.002)
    return time.perf_counter()


def start_mec(root: Path, workload: str, bundle: Bundle, folder: Path) -> Start:
    ready = folder / "ready"
    ready.unlink(missing_ok=True)
    options = ("--workload", workload, "--bind", "tcp://127.0.0.1:*", "--ready-file", str(ready))
    with command(root, "mec", *options) as (process, began_s):
        ready_s = until(ready.exists, process) - began_s
        with closing(Dealer(ready.read_text().strip())) as dealer:
            answer_s = until(Peer(dealer, bundle).has_answer, process) - began_s
    return Start(ready_s, answer_s)


class Peer:
    """Sends Hello to a MEC until it is welcomed, then one request."""

    def __init__(self, dealer: Dealer, bundle: Bundle) -> None:
        self._dealer, self._bundle = dealer, bundle
        self._row, self._payload = _full_offload(bundle)
        self._hello_s = 0.0

    def has_answer(self) -> bool:
        if time.perf_counter() - self._hello_s > _HELLO_EVERY_S:
            self._hello_s = time.perf_counter()
            self._dealer.send(wire.encode(wire.Hello("bench", self._bundle.held)))
        for parts in self._dealer.receive():
            match wire.decode(parts)[0]:
                case wire.Welcome():
                    self._hello_s = float("inf")
                    self._dealer.send(wire.encode(wire.InferRequest(1, self._row, 60_000), self._payload))
                case wire.InferReply():
                    return True
                case other:
                    raise FailureError(f"got {other}; expected a reply")
        return False


def _full_offload(bundle: Bundle) -> tuple[int, bytes]:
    """The first row that sends a whole image, and a blank image as its payload."""
    row = int(np.flatnonzero(bundle.space.full_offload)[0])
    decision = bundle.space.decisions[row]
    blank = np.zeros(bundle.payload_shape(decision.model, decision.resolution_px, 0), np.uint8)
    return row, encode_alone(bundle, decision, blank)


def start_device(root: Path, workload: str, endpoint: str, folder: Path) -> Start:
    log = folder / "outcomes.jsonl"
    log.unlink(missing_ok=True)
    options = ("--workload", workload, "--mec", endpoint, "--outcomes", str(log), "--frames", "5")
    with command(root, "device", *options) as (process, began_s):
        answer_s = until(lambda: log.exists() and b"\n" in log.read_bytes(), process) - began_s
    first = json.loads(log.read_bytes().splitlines()[0])
    return Start(answer_s - first["latency_ms"] / 1e3, answer_s)


def measured(start: Callable[[Path], Start], starts: int) -> tuple[Start, Start]:
    """One cold start and the median of the warm ones."""
    with fresh_copy() as root:
        cold, *warm = (start(root) for _ in range(1 + starts))
    middle = (statistics.median(each) for each in zip(*((one.ready_s, one.answer_s) for one in warm), strict=True))
    return cold, Start(*middle)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--workload", choices=WORKLOADS, action="append", help="default: each")
    parser.add_argument("--starts", type=int, default=5, help="number of warm starts")
    options = parser.parse_args()
    slowest_s = 0.0
    print(f"{'':<16} {'cold: ready':>12} {'answer':>8} {'warm: ready':>12} {'answer':>8}   (seconds)")
    for workload in options.workload or WORKLOADS:
        bundle = open_bundle(workload)
        with tempfile.TemporaryDirectory() as name, running_mec(workload) as mec:
            folder = Path(name)
            sides: dict[str, Callable[[Path], Start]] = {
                "MEC": lambda root: start_mec(root, workload, bundle, folder),  # noqa: B023 - called in this turn
                "device": lambda root: start_device(root, workload, mec.endpoint, folder),  # noqa: B023
            }
            for side, start in sides.items():
                cold, warm = measured(start, options.starts)
                figures = "".join(f" {one.ready_s:>12.2f} {one.answer_s:>8.2f}" for one in (cold, warm))
                print(f"{workload + ' ' + side:<16}{figures}", flush=True)
                slowest_s = max(slowest_s, warm.ready_s)
    print(f"budget {BUDGET_S:g} s to ready, warm: {'kept' if slowest_s <= BUDGET_S else 'MISSED'}")
    return 0 if slowest_s <= BUDGET_S else 1


if __name__ == "__main__":
    sys.exit(main())
