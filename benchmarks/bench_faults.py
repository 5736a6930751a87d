"""Measures the answers of every controller after a fault of the MEC or the link, with real processes.

``python -m benchmarks.bench_faults [--workload garments] [--faults killed,held] [--at-once 4]`` starts a MEC, a TCP
proxy in front of it, and one device process per controller. When every device has answered ``--before`` frames, the
fault begins (``benchmarks.support.faults``). It lasts until the end of the run, or for some seconds. The figures cover
the frames after that: the share answered in time, and the utility, both relative to ``device-only`` in the same run.
Utilities differ by chance, because answers are right or wrong: the standard error of the frame-by-frame difference is
printed. A controller whose local answers are as good as those of ``device-only`` has a ratio of about 1 under a
permanent fault, and of at least 1 under a temporary one.

A second table shows how long the device took to notice the fault, and from there to its first answer without the
faulty MEC (``benchmarks.support.detection`` says what counts). A third one shows the seconds until a MEC answered a
frame again: after the end of a temporary fault, or, where there are two MECs (``failover-``), after its begin.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import math
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, Any

from rich import box
from rich.console import Console
from rich.table import Table

from benchmarks.support.detection import Lines, Noticed, StampedLines, noticed
from benchmarks.support.faults import ENDS, FAULTS, FROM_THE_START, OF_TWO, SHIPPED, Scene
from benchmarks.support.mec_slowdown import MEC_SLOWDOWN
from controller.controllers.registry import CONTROLLER_NAMES
from controller.errors import FailureError, MecpilotError
from controller.records import NO_PAYLOAD
from runtime.link.endpoint import parse_endpoint
from runtime.testbed.processes import running_mec
from runtime.testbed.proxy import Proxy

CONTROLLERS = tuple(name for name in CONTROLLER_NAMES if name not in ("random", "greedy-oracle"))
#: Target for both ratios.
TARGET = 0.99
#: Target for the first answer without the faulty MEC after the fault was noticed.
ANSWER_TARGET_S = 0.1


@dataclass(frozen=True)
class Devices:
    """Options of the emulated devices."""

    workload: str
    frames: int
    fps: float
    deadline_ms: float
    slowdown: float

    def command(self, mecs: Sequence[str], controller: str, log: Path) -> list[str]:
        options = {
            "--workload": self.workload,
            "--profile": "shipped",
            "--controller": controller,
            "--frames": self.frames,
            "--fps": self.fps,
            "--deadline-ms": self.deadline_ms,
            "--slowdown": self.slowdown,
            "--outcomes": log,
        }
        pairs = [*(("--mec", mec) for mec in mecs), *options.items()]
        return [sys.executable, "-m", "mecpilot", "device", *(str(part) for pair in pairs for part in pair)]


@dataclass(frozen=True)
class After:
    """Figures of the frames after the fault began."""

    in_time_frac: float  # share of all frames that were answered in time or reused an answer
    run_in_time_frac: float  # share answered in time of the frames that were run or dropped
    utility: float
    by_frame: dict[int, float]  # utility by frame
    statuses: dict[str, int]
    back_s: float | None  # from the end of the fault to the MEC's next answer; None if it gave none before the fault
    noticed: Noticed | None  # None where the device noticed nothing

    def of(self, other: After) -> tuple[float, float]:
        """Ratios of frames in time and of utility to another device's; of both ways to count frames, the smaller."""
        in_time = _ratio(self.in_time_frac, other.in_time_frac), _ratio(self.run_in_time_frac, other.run_in_time_frac)
        return min(in_time), _ratio(self.utility, other.utility)

    def error_of(self, other: After) -> float:
        """Standard error of the ratio of utilities; not a number without common frames."""
        pairs = [(own, other.by_frame[frame]) for frame, own in self.by_frame.items() if frame in other.by_frame]
        difference = [own - theirs for own, theirs in pairs]
        if not difference:
            return math.nan
        return _ratio(statistics.pstdev(difference) / math.sqrt(len(difference)), other.utility)


def _ratio(own: float, other: float) -> float:
    return own / other if other > 0 else 1.0


#: Per controller: its figures, and those of device-only in the same run.
Found = dict[str, tuple[After, After]]


def play(devices: Devices, fault: str, controllers: Sequence[str], before: int, keep: Path | None) -> Found:
    """Run these controllers and device-only at the same time, with one fault."""
    with contextlib.ExitStack() as stack:
        folder = keep or Path(stack.enter_context(tempfile.TemporaryDirectory()))
        mec = stack.enter_context(running_mec(devices.workload, slowdown=MEC_SLOWDOWN, options=SHIPPED))
        where = parse_endpoint(mec.endpoint)
        proxy = stack.enter_context(Proxy((where.host, where.port)))
        FROM_THE_START.get(fault, lambda _: None)(proxy)
        mecs = [proxy.endpoint]
        if fault in OF_TWO:
            other = running_mec(devices.workload, slowdown=MEC_SLOWDOWN, options=SHIPPED)
            mecs.append(stack.enter_context(other).endpoint)
        logs = {name: folder / f"{fault}-{name}.jsonl" for name in ("device-only", *controllers)}
        running = {name: stack.enter_context(_process(devices.command(mecs, name, log))) for name, log in logs.items()}
        said = {name: StampedLines(_errors(running[name]), log.with_suffix(".err")) for name, log in logs.items()}
        _wait_for(running.values(), logs.values(), before)
        first = {name: _lines(log) for name, log in logs.items()}
        began_s = time.time()
        FAULTS[fault](Scene(devices.workload, devices.deadline_ms / 1e3, mec, proxy, stack))
        ended_s = began_s if fault in OF_TWO else time.time() if fault in ENDS else None
        lines = {name: said[name].finish(process) for name, process in running.items()}
        mec.process.send_signal(signal.SIGCONT)
        after = {
            name: _after(_outcomes(log, devices.frames), first[name], ended_s, lines[name], began_s, mecs)
            for name, log in logs.items()
        }
        return {name: (after[name], after["device-only"]) for name in logs}


@contextlib.contextmanager
def _process(command: list[str]) -> Iterator[subprocess.Popen[bytes]]:
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, stdin=subprocess.DEVNULL)
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def _errors(process: subprocess.Popen[bytes]) -> IO[bytes]:
    assert process.stderr is not None
    return process.stderr


def _wait_for(running: Iterable[subprocess.Popen[bytes]], logs: Iterable[Path], count: int) -> None:
    """Wait until every log has ``count`` lines. FailureError if a process ends before that."""
    running, logs = tuple(running), tuple(logs)
    while any(_lines(log) < count for log in logs):
        if any(process.poll() is not None for process in running):
            raise FailureError("a device ended before the fault; run it alone to see why")
        time.sleep(0.05)


def _lines(log: Path) -> int:
    return log.read_bytes().count(b"\n") if log.exists() else 0


def _outcomes(log: Path, frames: int) -> list[dict[str, Any]]:
    outcomes = [json.loads(line) for line in log.read_text().splitlines()]
    if sorted(outcome["frame"] for outcome in outcomes) != list(range(frames)):
        raise FailureError(f"{log.name}: got {len(outcomes)} outcomes; expected one for each of {frames} frames")
    return outcomes


def _after(
    outcomes: list[dict[str, Any]],
    first: int,
    ended_s: float | None,
    lines: Lines,
    began_s: float,
    mecs: Sequence[str],
) -> After:
    after = [outcome for outcome in outcomes if outcome["frame"] >= first]
    statuses = Counter(outcome["status"] for outcome in after)
    in_time, skipped = statuses["ok"] + statuses["fallback"], statuses["skipped"]
    return After(
        (in_time + skipped) / len(after),
        in_time / max(len(after) - skipped, 1),
        sum(outcome["utility"] for outcome in after) / len(after),
        {outcome["frame"]: outcome["utility"] for outcome in after},
        dict(statuses),
        None if ended_s is None else _back_s(outcomes, first, ended_s, mecs),
        noticed(outcomes, lines, began_s, mecs[1:]),
    )


def _back_s(outcomes: list[dict[str, Any]], first: int, ended_s: float, mecs: Sequence[str]) -> float | None:
    """Seconds to the first answer of the MEC after the fault; of the second one, where there are two."""
    remote = [o for o in outcomes if o["status"] == "ok" and o["decision"]["payload"] != NO_PAYLOAD]
    if not any(outcome["frame"] < first for outcome in remote):
        return None
    after = [o for o in remote if o["frame"] >= first and (len(mecs) == 1 or o["mec"] == mecs[1])]
    answers = (outcome["captured_at"] + outcome["latency_ms"] / 1e3 for outcome in after)
    return min((at_s - ended_s for at_s in answers if at_s > ended_s), default=math.inf)


def tables_of(devices: Devices, results: Mapping[str, Found]) -> Iterator[Table]:
    """A row per fault and a column per controller: a table of both ratios, one of the time until the device noticed
    and answered, and one of the seconds until a MEC answered again."""
    controllers = list(next(iter(results.values())))
    title = (
        f"{devices.workload}, device {devices.slowdown:g} times slower, {devices.fps:g} frames/s, "
        f"deadline {devices.deadline_ms:g} ms: frames in time / utility after the fault"
    )
    table = Table("fault", *controllers, title=f"{title}, relative to device-only", box=box.MARKDOWN)
    title = "Milliseconds until the fault was noticed + from there to the first answer without that MEC"
    seen = Table("fault", *controllers, title=title, box=box.MARKDOWN)
    back = Table("fault", *controllers, title="Seconds until a MEC answered a frame again", box=box.MARKDOWN)
    for fault, found in results.items():
        table.add_row(fault, *(_cell(name, *found[name]) for name in controllers))
        seen.add_row(fault, *(_noticed(found[name][0].noticed) for name in controllers))
        if fault in (*ENDS, *OF_TWO):
            back.add_row(fault, *("" if (s := found[name][0].back_s) is None else _seconds(s) for name in controllers))
    return iter((table, seen, back) if back.rows else (table, seen))


def _cell(name: str, own: After, alone: After) -> str:
    in_time, utility = (own.run_in_time_frac, own.utility) if name == "device-only" else own.of(alone)
    return f"{in_time:.3f} / {utility:.3f}"


def _noticed(found: Noticed | None) -> str:
    return "" if found is None else f"{found.after_s * 1e3:.0f} + {found.answered_s * 1e3:.0f}"


def _seconds(duration_s: float) -> str:
    return "not asked" if math.isinf(duration_s) else f"{duration_s:.1f}"


def missed(results: Mapping[str, Found]) -> list[str]:
    """A line for each figure that misses its target."""
    slow = [
        f"{fault}, {name}: first answer {own.noticed.answered_s * 1e3:.0f} ms after the fault was noticed"
        for fault, found in results.items()
        for name, (own, _) in found.items()
        if own.noticed is not None and own.noticed.answered_s > ANSWER_TARGET_S
    ]
    return slow + [
        f"{fault}, {name}: {what} {value:.3f} of device-only's{error}"
        for fault, found in results.items()
        for name, (own, alone) in found.items()
        for what, value, error in zip(
            ("frames in time", "utility"),
            own.of(alone),
            ("", f" (standard error {own.error_of(alone):.3f})"),
            strict=True,
        )
        if value < TARGET
    ]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--workload", default="garments")
    parser.add_argument("--faults", default=",".join(FAULTS), help="comma-separated")
    parser.add_argument("--controllers", default=",".join(CONTROLLERS), help="comma-separated; device-only always runs")
    parser.add_argument("--at-once", type=int, default=7, help="devices that run at once, besides device-only")
    parser.add_argument("--before", type=int, default=60, help="frames before the fault")
    parser.add_argument("--frames", type=int, default=620, help="of each device, before and after the fault")
    parser.add_argument("--fps", type=float, default=20.0)
    parser.add_argument("--deadline-ms", type=float, default=200.0)
    parser.add_argument("--slowdown", type=float, default=100.0)
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    parser.add_argument("--keep", type=Path, help="keep outcome logs and the devices' messages in this folder")
    options = parser.parse_args()
    devices = Devices(options.workload, options.frames, options.fps, options.deadline_ms, options.slowdown)
    others = [name for name in dict.fromkeys(options.controllers.split(",")) if name != "device-only"]
    groups = [others[at : at + options.at_once] for at in range(0, len(others), options.at_once)] or [[]]
    results: dict[str, Found] = {}
    try:
        for fault in options.faults.split(","):
            for number, group in enumerate(groups):
                print(f"{fault}: {', '.join(group) or 'device-only'}", file=sys.stderr)
                keep = _new_folder(options.keep / str(number)) if options.keep else None
                results[fault] = play(devices, fault, group, options.before, keep) | results.get(fault, {})
            print(f"{fault}: done, load {os.getloadavg()[0]:.1f}", file=sys.stderr)
    except MecpilotError as error:
        print(f"bench_faults: {error}", file=sys.stderr)
        return error.exit_code
    for table in tables_of(devices, results):
        Console(width=200).print(table)
    below = missed(results)
    print("\n".join(below) or f"every controller reaches {TARGET} of device-only's under every fault, and in time")
    if options.json:
        plain = {fault: {name: _plain(own) for name, (own, _) in found.items()} for fault, found in results.items()}
        options.json.write_text(json.dumps(plain, indent=1) + "\n")
    return 0


def _plain(after: After) -> dict[str, Any]:
    return {name: value for name, value in asdict(after).items() if name != "by_frame"}


def _new_folder(path: Path) -> Path:
    path.mkdir(parents=True, exist_ok=True)
    return path


if __name__ == "__main__":
    sys.exit(main())
