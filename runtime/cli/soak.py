"""``mecpilot soak``: real devices and MECs under random faults, and an account of every frame."""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from controller.errors import UsageError
from runtime.cli.console import log_as, write_json
from runtime.cli.shared_options import JsonOut
from runtime.files.atomic import check_writable
from runtime.observe.tables import new_table, table_console
from runtime.testbed.soak.account import QUIET

if TYPE_CHECKING:
    from rich.table import Table

    from runtime.testbed.soak.findings import DaemonFigures, FaultFigures, Findings
    from runtime.testbed.soak.trend import Trend

_TELL_EVERY_FRAC = 0.05


def soak(
    minutes: Annotated[float, typer.Option(min=0.2, max=1e5, help="How long, after the start.")] = 60.0,
    seed: Annotated[int, typer.Option(min=0, help="Random seed of the faults.")] = 0,
    workload: Annotated[str, typer.Option(help="Workload of devices and MECs.")] = "garments",
    controller: Annotated[str, typer.Option(help="Controller of the devices.")] = "ppo",
    fps: Annotated[float, typer.Option(min=0.1, max=1000.0, help="Frames per second of each device.")] = 20.0,
    deadline_ms: Annotated[float, typer.Option(min=1.0, max=60e3, help="From capture to answer, in ms.")] = 200.0,
    slowdown: Annotated[float, typer.Option(min=1.0, max=1e4, help="Emulate devices this many times slower.")] = 100.0,
    failover: Annotated[bool, typer.Option("--failover", help="Give each device both MECs.")] = False,
    keep: Annotated[Path | None, typer.Option(help="Keep messages and samples in this new folder.")] = None,
    json_out: JsonOut = None,
) -> int:
    """Run two devices and two MECs as real processes, cause random faults, and account for every frame, process and
    resource. Exits with 1 if a frame had no outcome or two, a process ended by itself or hung, or one leaks."""
    from runtime.testbed.soak.fleet import Settings
    from runtime.testbed.soak.run import soak as run_soak

    check_writable(json_out, "--json")
    settings = Settings(minutes, seed, workload, controller, fps, deadline_ms, slowdown, failover)
    with _folder(keep) as folder, _progress(minutes) as tell:
        findings = run_soak(settings, folder, tell)
    if not write_json(asdict(findings), json_out):
        report(findings)
    return 1 if findings.broken else 0


@contextmanager
def _folder(keep: Path | None) -> Iterator[Path]:
    if keep is None:
        with tempfile.TemporaryDirectory(prefix="mecpilot-soak-") as temporary:
            yield Path(temporary)
        return
    try:
        keep.mkdir(parents=True)
    except OSError as error:
        raise UsageError(f"--keep {keep}: {error.strerror}; expected a folder that can be made") from None
    yield keep


def _progress(minutes: float) -> AbstractContextManager[Callable[[float, str], None]]:
    """A bar on a terminal, elsewhere a line now and then."""
    return _bar() if sys.stderr.isatty() else nullcontext(_Lines(minutes))


class _Lines:
    """A line on stderr for each twentieth of the time."""

    def __init__(self, minutes: float) -> None:
        self._log, self._minutes, self._next_frac = log_as("soak"), minutes, 0.0

    def __call__(self, done_frac: float, now: str) -> None:
        if done_frac >= self._next_frac:
            self._next_frac = done_frac + _TELL_EVERY_FRAC
            self._log(f"{done_frac * self._minutes:.1f} of {self._minutes:g} minutes: {now}")


@contextmanager
def _bar() -> Iterator[Callable[[float, str], None]]:
    from rich.console import Console
    from rich.progress import Progress

    with Progress(console=Console(stderr=True), transient=True, redirect_stdout=False) as bar:
        task = bar.add_task("soak", total=1.0)
        yield lambda done, now: bar.update(task, completed=done, description=f"soak: {now}")


def report(findings: Findings) -> None:
    """Tables on stdout, and a line for each thing that must not happen but did."""
    console = table_console(wide=True)
    console.print(_fault_table(findings))
    console.print(_daemon_table(findings.daemons))
    killed = f"{findings.torn_lines} half lines after kill -9"
    console.print(f"{findings.rotations} log rotations, {findings.requests} requests at the MECs, {killed}")
    for line in findings.broken:
        console.print(f"BROKEN: {line}", soft_wrap=True, highlight=False)
    if not findings.broken:
        console.print(f"survived {findings.lasted_s / 60.0:.1f} minutes (seed {findings.settings.seed})")


def _fault_table(findings: Findings) -> Table:
    headings = ("fault", "count", "frames", "without outcome", "twice", "in time", "MEC answers again, s", "not back")
    table = new_table("Faults, and the frames from their beginning to 3 s after their end", headings, ("fault",))
    for one in findings.faults:
        name = f"{one.fault} ({findings.disk})" if one.fault == "disk full" else one.fault
        count = "" if one.fault == QUIET else one.count
        counts = (str(value) for value in (count, one.frames, one.without_outcome, one.twice))
        share = "" if one.in_time_frac is None else f"{one.in_time_frac:.1%}"
        table.add_row(name, *counts, share, _back(one), "" if one.fault == QUIET else str(one.not_back))
    return table


def _back(one: FaultFigures) -> str:
    if one.back_s is None or one.most_back_s is None:
        return ""
    return f"{one.back_s:.2f} (most {one.most_back_s:.2f})"


def _daemon_table(daemons: Sequence[DaemonFigures]) -> Table:
    headings = ("process", "lives", "longest", "memory, MB", "MB per hour", "descriptors", "threads", "silence")
    title = "Processes: the longest life of each, with slopes per hour and their 95 % interval"
    table = new_table(title, headings, ("process",))
    for one in daemons:
        found = one.trends
        row = (_last(found.get("memory_mb"), ".1f"), _slope(found.get("memory_mb")))
        rest = (_both(found.get(name)) for name in ("descriptors", "threads"))
        table.add_row(one.name, str(one.lives), f"{one.longest_life_s:.0f} s", *row, *rest, f"{one.silence_s:.1f} s")
    return table


def _last(found: Trend | None, form: str) -> str:
    return "" if found is None else format(found.last, form)


def _slope(found: Trend | None) -> str:
    return "" if found is None else f"{found.per_hour:+.1f} ({found.low:+.1f} to {found.high:+.1f})"


def _both(found: Trend | None) -> str:
    return "" if found is None else f"{found.last:.0f}, {_slope(found)}"
