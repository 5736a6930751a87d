"""What a command does for the program that started it: report that it is ready, and end with it."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from pathlib import Path

from runtime.files.atomic import write_whole


def follow_parent() -> threading.Event:
    """End by SIGTERM when stdin ends, as it does when the parent is gone. Bytes from the parent set the event."""
    word = threading.Event()
    main = threading.main_thread().ident

    def watch() -> None:
        with contextlib.suppress(OSError):
            while os.read(0, 64):
                word.set()
        if main is not None:
            signal.pthread_kill(main, signal.SIGTERM)

    threading.Thread(target=watch, daemon=True).start()
    return word


def say_ready(ready_file: Path | None, line: str) -> None:
    """A line into a pipe, or into a file that no reader finds half written."""
    if ready_file is not None:
        write_whole(ready_file, f"{line}\n".encode(), "the ready file")


def withdraw_ready(ready_file: Path | None, line: str | None = None) -> None:
    """Remove a ready file, if it is a file and holds that line; so that an old file is not taken for a new start."""
    if ready_file is None or _is_special(ready_file):
        return
    with contextlib.suppress(OSError, UnicodeError):
        if line is None or ready_file.read_text() == line + "\n":
            ready_file.unlink()


def _is_special(path: Path) -> bool:
    """A pipe or a device."""
    return path.exists() and not path.is_file()
