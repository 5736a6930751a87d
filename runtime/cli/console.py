"""What the long-running commands show: log lines, progress, the summary."""

from __future__ import annotations

import atexit
import math
import select
import sys
import threading
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from controller.records import Outcome
from runtime.files.atomic import STDOUT, write_whole
from runtime.files.provenance import Provenance
from runtime.observe.oversight import oversight_texts
from runtime.observe.repeats import Repeats
from runtime.observe.status_line import StatusLine
from runtime.observe.summary import RunSummary, link_text, source_text

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress as TaskBar


def log_as(who: str) -> Log:
    """A log on stderr, a line per call; lines that repeat are counted (``runtime.observe.repeats``)."""
    return Log(f"mecpilot {who}: ")


def counted(count: int, noun: str) -> str:
    """A count with its noun: "1 device", "2 devices"."""
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


class Log:
    """Owns what was not printed yet. A stderr that is closed, full or not read stops nothing."""

    def __init__(self, prefix: str) -> None:
        self._prefix = prefix
        self._repeats = Repeats(self._emit)
        self._lock = threading.RLock()
        self._timer: threading.Timer | None = None
        atexit.register(self._repeats.flush)

    def __call__(self, text: str) -> None:
        self._repeats(text)
        self._set_timer()

    def _set_timer(self) -> None:
        """A count is printed when its window ends, whether or not anything is logged then."""
        with self._lock:
            due_s = self._repeats.due_in_s
            if self._timer is None and due_s < math.inf:
                self._timer = threading.Timer(due_s, self._tick)
                self._timer.daemon = True
                self._timer.start()

    def _tick(self) -> None:
        with self._lock:
            self._timer = None
        self._repeats.tick()
        self._set_timer()

    def _emit(self, text: str) -> None:
        try:
            if _has_room(sys.stderr):
                print(f"{self._prefix}{text}", file=sys.stderr, flush=True)
        except (OSError, ValueError):
            return


def _has_room(stream: Any) -> bool:
    """Whether a line can be written without waiting for a reader."""
    try:
        poll = select.poll()
        poll.register(stream.fileno(), select.POLLOUT)
        return bool(poll.poll(0))
    except (OSError, ValueError):
        return True  # no stream of the system


def progress(frames: int | None, log: Callable[[str], None]) -> AbstractContextManager[Callable[[Outcome], None]]:
    """A bar on a terminal, elsewhere a line per minute; ``frames`` None when the number is not known."""
    if not sys.stderr.isatty():
        return nullcontext(StatusLine(log).add)
    return _Bar(frames)


class _Bar:
    def __init__(self, frames: int | None) -> None:
        from rich.console import Console
        from rich.progress import Progress

        # Rich would print our stdout on the terminal of stderr, so a file that it is redirected to would stay empty.
        self._progress = Progress(console=Console(stderr=True), transient=True, redirect_stdout=False)
        self._task = self._progress.add_task("frames", total=frames)

    def __enter__(self) -> Callable[[Outcome], None]:
        self._progress.start()
        return self._advance

    def __exit__(self, *_: object) -> None:
        self._progress.stop()

    def _advance(self, outcome: Outcome) -> None:
        self._progress.update(self._task, advance=1, description=f"{outcome.status.value} {outcome.latency_ms:.0f} ms")


def task_bar(console: Console | None = None) -> TaskBar:
    """A bar per task, with counts and times, on ``console`` or on stderr. Nothing is drawn without a terminal."""
    from rich import progress as bars
    from rich.console import Console

    console = console or Console(stderr=True)
    columns = (bars.TextColumn("{task.description}"), bars.BarColumn(), bars.MofNCompleteColumn())
    times = (bars.TimeElapsedColumn(), bars.TimeRemainingColumn())
    return bars.Progress(*columns, *times, console=console, disable=not console.is_terminal)


def write_json(document: Any, target: str | Path | None, *, make_folder: bool = False) -> bool:
    """Write a document as JSON to a file, or to stdout for "-"; whether stdout has it, so that no table goes there."""
    if target is None:
        return False
    data = msgspec.json.format(msgspec.json.encode(document), indent=1) + b"\n"
    if str(target) == STDOUT:
        print(data.decode(), end="", flush=True)
        return True
    write_whole(Path(target), data, make_folder=make_folder)
    return False


def print_summary(
    summary: RunSummary,
    title: str,
    json_out: str | None,
    controller: str,
    link: Mapping[str, Any],
    endpoint: str,
    provenance: Provenance,
    source: Mapping[str, float],
    shortcuts: Mapping[str, Mapping[str, float | None]],
    oversight: Mapping[str, Mapping[str, Any]],
    *,
    quiet: bool = False,
    stdout_taken: bool = False,
) -> None:
    """The table on stdout, on stderr where stdout is taken; and JSON where it was asked for. ``link`` are the counts of
    the device, ``source`` what the source notes (``Source.notes``), ``shortcuts`` what each of them does
    (``Shortcut.notes``), ``oversight`` what guard and shadow say (``Run.oversight``)."""
    from rich.console import Console

    about = {
        "controller": controller,
        **summary.figures(),
        "link": dict(link),
        "source": dict(source) or None,
        "provenance": provenance.as_json(),
    }
    if shortcuts:
        about["shortcuts"] = {name: dict(notes) for name, notes in shortcuts.items()}
    about |= {name: dict(notes) for name, notes in oversight.items()}
    if write_json(about, json_out):
        return
    if not quiet:
        console = Console(stderr=stdout_taken)
        console.print(
            summary.table(
                title,
                link_text(link, endpoint, any_frame=bool(summary.frames)),
                source_text(source),
                shortcuts,
                oversight_texts(oversight),
            )
        )
        for line in provenance.lines:
            console.print(line, highlight=False, soft_wrap=True)
