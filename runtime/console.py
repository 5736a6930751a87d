"""How do the long-running commands talk to people and to the system? Logs, progress, the summary, signals."""

from __future__ import annotations

import json
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from types import FrameType
from typing import Any

from controller.errors import UsageError
from controller.records import Outcome
from runtime.provenance import Provenance
from runtime.summary import RunSummary, link_text


def log_as(who: str) -> Callable[[str], None]:
    def log(text: str) -> None:
        print(f"mecpilot {who}: {text}", file=sys.stderr, flush=True)

    return log


def progress(frames: int | None) -> AbstractContextManager[Callable[[Outcome], None]]:
    """A bar on a terminal, silence elsewhere; None frames when nobody knows how many there will be."""
    if not sys.stderr.isatty():
        return nullcontext(lambda _: None)
    return _Bar(frames)


class _Bar:
    def __init__(self, frames: int | None) -> None:
        from rich.console import Console
        from rich.progress import Progress

        self._progress = Progress(console=Console(stderr=True), transient=True)
        self._task = self._progress.add_task("frames", total=frames)

    def __enter__(self) -> Callable[[Outcome], None]:
        self._progress.start()
        return self._advance

    def __exit__(self, *_: object) -> None:
        self._progress.stop()

    def _advance(self, outcome: Outcome) -> None:
        self._progress.update(self._task, advance=1, description=f"{outcome.status.value} {outcome.latency_ms:.0f} ms")


def print_summary(
    summary: RunSummary,
    title: str,
    json_out: str | None,
    controller: str,
    counts: dict[str, Any],
    endpoint: str,
    provenance: Provenance,
) -> None:
    from rich.console import Console

    if json_out is not None:
        about = {"controller": controller, **summary.figures(), "link": counts, "provenance": provenance.as_json()}
        text = json.dumps(about, indent=1)
    if json_out == "-":
        print(text)
        return
    console = Console()
    console.print(summary.table(title, link_text(counts, endpoint)))
    for line in provenance.lines:
        console.print(line, highlight=False, soft_wrap=True)
    if json_out is not None:
        _write_whole(Path(json_out), text + "\n")


def _write_whole(path: Path, text: str) -> None:
    """Nobody reads half a file."""
    partial = path.with_name(f"{path.name}.partial")
    try:
        partial.write_text(text)
        partial.replace(path)
    except OSError as error:
        raise UsageError(f"cannot write {path}: {error.strerror}; expected a file in a directory that exists") from None


class Stop:
    """Whether an orderly end was asked for, and what to do then."""

    def __init__(self) -> None:
        self._asked = False
        self._then: Callable[[], None] = lambda: None

    def asked(self) -> bool:
        return self._asked

    def then(self, callback: Callable[[], None]) -> None:
        """Do this when asked; at once when that was before."""
        self._then = callback
        if self._asked:
            callback()

    def ask(self, number: int, _: FrameType | None) -> None:
        """A signal handler; the next signal of this kind ends the process."""
        self._asked = True
        signal.signal(number, signal.SIG_DFL)
        self._then()


@contextmanager
def stop_on_signal() -> Iterator[Stop]:
    """SIGTERM and Ctrl-C ask for an orderly end for the time of a block."""
    stop = Stop()
    before = {number: signal.signal(number, stop.ask) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
