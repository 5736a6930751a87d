"""What becomes of the frames when the MEC or the link fails? Every controller, real processes, one fault per run.

``python -m benchmarks.bench_faults [--workload garments] [--faults killed,held]`` starts a MEC, a TCP proxy in front of
it, and one device process per controller, all at once. When every device has answered ``BEFORE`` frames the fault
begins; it lasts to the end of the run, or for ``BREAK_S``. What counts are the frames after it: the share that was
answered in time, and the utility, as a ratio to ``device-only`` in the same run. A controller that keeps pace alone
has a ratio of about 1 under a fault that lasts, and of at least that under one that ends.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from rich.console import Console
from rich.table import Table

from benchmarks.proxy import Mode, Proxy
from controller.errors import FailureError, MecpilotError
from controller.registry import CONTROLLER_NAMES
from runtime.endpoint import parse_endpoint
from runtime.processes import RunningMec, running_mec

CONTROLLERS = tuple(name for name in CONTROLLER_NAMES if name not in ("random", "hindsight"))
#: Frames before the fault, and how long one lasts that ends.
BEFORE = 60
BREAK_S = 6.0
#: The target: at least this share of what device-only does.
TARGET = 0.99
SHIPPED = ("--profile", "shipped")


@dataclass(frozen=True)
class Scene:
    """What a fault can act on; processes that it starts end with ``stack``."""

    workload: str
    mec: RunningMec
    proxy: Proxy
    stack: contextlib.ExitStack


def killed(scene: Scene) -> None:
    """``kill -9`` of the MEC."""
    scene.mec.process.kill()


def stopped(scene: Scene) -> None:
    """SIGSTOP: the connection stays, and nothing answers."""
    scene.mec.process.send_signal(signal.SIGSTOP)


def restarted(scene: Scene) -> None:
    """Another MEC on the same port, after a while."""
    killed(scene)
    scene.mec.process.wait()
    time.sleep(BREAK_S)
    scene.stack.enter_context(running_mec(scene.workload, bind=scene.mec.endpoint, options=SHIPPED))


def cut(scene: Scene) -> None:
    """Connections are reset and refused for a while."""
    scene.proxy.set(Mode.CUT)
    time.sleep(BREAK_S)
    scene.proxy.set(Mode.PASS)


def held(scene: Scene) -> None:
    """Every byte is lost and nothing is reset for a while."""
    scene.proxy.set(Mode.SWALLOW)
    time.sleep(BREAK_S)
    scene.proxy.set(Mode.PASS)


def half_open(scene: Scene) -> None:
    """A router forgets its connections: new ones work, old ones stay silent for ever."""
    scene.proxy.forget()


def absent(scene: Scene) -> None:
    """There is no MEC from the start."""


FAULTS: dict[str, Callable[[Scene], None]] = {
    "killed": killed,
    "stopped": stopped,
    "restarted": restarted,
    "cut": cut,
    "held": held,
    "half-open": half_open,
    "absent": absent,
}


@dataclass(frozen=True)
class Devices:
    """How the emulated devices run."""

    workload: str
    frames: int
    fps: float
    deadline_ms: float
    slowdown: float

    def command(self, endpoint: str, controller: str, log: Path) -> list[str]:
        options = {
            "--mec": endpoint,
            "--workload": self.workload,
            "--profile": "shipped",
            "--controller": controller,
            "--frames": self.frames,
            "--fps": self.fps,
            "--deadline-ms": self.deadline_ms,
            "--slowdown": self.slowdown,
            "--outcomes": log,
        }
        return [sys.executable, "-m", "mecpilot", "device", *(str(part) for pair in options.items() for part in pair)]


@dataclass(frozen=True)
class After:
    """How the frames after the fault went."""

    in_time_frac: float  # answered in time or reusing an answer, of all
    run_in_time_frac: float  # of those that were run or dropped
    utility: float


def play(devices: Devices, fault: str, controllers: Sequence[str]) -> dict[str, After]:
    """One run: every controller at once, one fault."""
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        mec = stack.enter_context(running_mec(devices.workload, slowdown=2.0, options=SHIPPED))
        where = parse_endpoint(mec.endpoint)
        proxy = stack.enter_context(Proxy((where.host, where.port)))
        if fault == "absent":
            proxy.set(Mode.CUT)
        logs = {name: folder / f"{name}.jsonl" for name in controllers}
        running = [
            stack.enter_context(_process(devices.command(proxy.endpoint, name, logs[name]), folder / f"{name}.err"))
            for name in controllers
        ]
        _wait_for(running, logs.values(), BEFORE)
        first = {name: _lines(log) for name, log in logs.items()}
        FAULTS[fault](Scene(devices.workload, mec, proxy, stack))
        for process in running:
            process.wait()
        mec.process.send_signal(signal.SIGCONT)
        return {name: _after(logs[name], first[name], devices.frames) for name in controllers}


@contextlib.contextmanager
def _process(command: list[str], errors: Path) -> Iterator[subprocess.Popen[bytes]]:
    with errors.open("wb") as stream:
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=stream, stdin=subprocess.DEVNULL)
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def _wait_for(running: Sequence[subprocess.Popen[bytes]], logs: Iterable[Path], count: int) -> None:
    """Until every log has so many lines; a process that ends before is an error."""
    while any(_lines(log) < count for log in logs):
        if any(process.poll() is not None for process in running):
            raise FailureError("a device ended before the fault; run it alone to see why")
        time.sleep(0.05)


def _lines(log: Path) -> int:
    return log.read_bytes().count(b"\n") if log.exists() else 0


def _after(log: Path, first: int, frames: int) -> After:
    outcomes = [json.loads(line) for line in log.read_text().splitlines()]
    if sorted(outcome["frame"] for outcome in outcomes) != list(range(frames)):
        raise FailureError(f"{log.name}: got {len(outcomes)} outcomes; expected one for each of {frames} frames")
    after = [outcome for outcome in outcomes if outcome["frame"] >= first]
    fresh = [outcome for outcome in after if outcome["status"] != "skipped"]
    in_time = [outcome for outcome in fresh if outcome["status"] in ("ok", "fallback")]
    skipped = len(after) - len(fresh)
    return After(
        (len(in_time) + skipped) / len(after),
        len(in_time) / max(len(fresh), 1),
        sum(outcome["utility"] for outcome in after) / len(after),
    )


def table_of(devices: Devices, results: Mapping[str, Mapping[str, After]]) -> Table:
    """A row per controller and a column per fault: frames in time, and utility, both over device-only's."""
    title = (
        f"{devices.workload}, device {devices.slowdown:g} times slower, {devices.fps:g} frames/s, "
        f"deadline {devices.deadline_ms:g} ms: in time / utility after the fault, over device-only's"
    )
    table = Table("controller", *results, title=title, title_justify="left")
    names = list(next(iter(results.values())))
    for name in names:
        table.add_row(name, *(_cell(found, name) for found in results.values()))
    return table


def _cell(found: Mapping[str, After], name: str) -> str:
    own, alone = found[name], found["device-only"]
    if name == "device-only":
        return f"{own.in_time_frac:.3f} / {own.utility:.3f}"
    return f"{ratio(own.in_time_frac, alone.in_time_frac):.3f} / {ratio(own.utility, alone.utility):.3f}"


def ratio(own: float, alone: float) -> float:
    return own / alone if alone > 0 else 1.0


def missed(results: Mapping[str, Mapping[str, After]]) -> list[str]:
    """What is below the target, in words."""
    lines = []
    for fault, found in results.items():
        alone = found["device-only"]
        for name, own in found.items():
            for what, value in (
                ("in time", ratio(own.in_time_frac, alone.in_time_frac)),
                ("utility", ratio(own.utility, alone.utility)),
            ):
                if value < TARGET:
                    lines.append(f"{fault}, {name}: {what} {value:.3f} of device-only's")
    return lines


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--workload", default="garments")
    parser.add_argument("--faults", default=",".join(FAULTS), help="comma-separated")
    parser.add_argument("--controllers", default=",".join(CONTROLLERS), help="comma-separated; device-only always runs")
    parser.add_argument("--frames", type=int, default=500)
    parser.add_argument("--fps", type=float, default=20.0)
    parser.add_argument("--deadline-ms", type=float, default=200.0)
    parser.add_argument("--slowdown", type=float, default=100.0)
    parser.add_argument("--json", type=Path, help="write the figures to this file too")
    options = parser.parse_args()
    devices = Devices(options.workload, options.frames, options.fps, options.deadline_ms, options.slowdown)
    controllers = list(dict.fromkeys(["device-only", *options.controllers.split(",")]))
    results: dict[str, dict[str, After]] = {}
    try:
        for fault in options.faults.split(","):
            results[fault] = play(devices, fault, controllers)
            print(f"{fault}: done", file=sys.stderr)
    except MecpilotError as error:
        print(f"bench_faults: {error}", file=sys.stderr)
        return error.exit_code
    Console(width=140).print(table_of(devices, results))
    below = missed(results)
    print("\n".join(below) or f"every controller reaches {TARGET} of device-only's under every fault")
    if options.json:
        plain = {fault: {name: asdict(after) for name, after in found.items()} for fault, found in results.items()}
        options.json.write_text(json.dumps(plain, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
