"""Find the bandwidth traces in the files and folders that a user names, and read them into one ``TraceBank``.

``runtime.traces.formats`` has the formats. A file that is named must be a trace. In a folder, files that are not
traces, cannot be read, or hold only a downlink are skipped and reported. The name of a trace is ``FOLDER/FILE``; the
folder stands for its family.
"""

from __future__ import annotations

import codecs
import os
import re
import select
import stat
import sys
import time
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np

from controller.errors import UsageError
from controller.predict.uplink import Trace, TraceBank
from runtime.files.masking import shown
from runtime.traces.formats import EXPECTED, read_text
from runtime.traces.tables import columns_of
from runtime.traces.text import MOST_BPS, SI_PREFIX, SINGLE_VALUE_S, NoTrace, Series, Text

MOST_BYTES = 64 << 20
MOST_FILES = 20_000
#: Number of skipped files that are named; the rest are only counted.
MOST_NAMED = 5
#: Longest silence of a pipe.
PIPE_WAIT_S = 5.0
_RATE = re.compile(r"(?P<number>\d{1,15}(?:\.\d{1,15})?) ?(?P<prefix>[kmg]?)bit(?:/s)?")
_DOWNLINK = re.compile(r"^downlink|(?:^|[-_. ])(?:down|downlink|dl)$")

Note = Callable[[str], None]


def _print_note(line: str) -> None:
    print(f"mecpilot: {line}", file=sys.stderr, flush=True)


def load_traces(paths: str | Path | Iterable[str | Path], note: Note = _print_note) -> TraceBank:
    """All traces of the given files and of the files below the given folders; each folder in sorted order.

    ``note`` receives a line about skipped files. UsageError for a bad file, or a folder without traces.
    """
    given = [paths] if isinstance(paths, str | Path) else list(paths)
    if not given:
        raise UsageError("got no trace path; expected files or folders")
    return TraceBank([trace for path in given for trace in _traces_of(Path(path), note)])


def _traces_of(path: Path, note: Note) -> list[Trace]:
    return _folder(path, note) if path.is_dir() else [read_trace(path)]


def read_trace(path: str | Path) -> Trace:
    """One trace in any of the formats, or the constant rate that stands in place of a file; UsageError names the file,
    the line, what it holds and what was expected."""
    return constant_rate(str(path)) or _trace(Path(path), _read(Path(path)))


def constant_rate(text: str) -> Trace | None:
    """The trace of a rate such as ``16kbit`` or ``2.5mbit/s``, all of which one device has; None for anything else, and
    for the name of a file."""
    found = _RATE.fullmatch(text.lower())
    if found is None or Path(text).exists():
        return None
    bps = float(found["number"]) * SI_PREFIX[found["prefix"]]
    if not 0 < bps <= MOST_BPS:
        raise UsageError(f"got the rate {text}; expected more than 0, at most {MOST_BPS / 1e6:g} Mbit/s")
    return Trace(f"constant/{text}", np.zeros(1), np.array([bps]), SINGLE_VALUE_S, is_shared=False)


def _trace(path: Path, series: Series) -> Trace:
    return Trace(f"{path.resolve().parent.name}/{path.stem}", series.t_s, series.bps, series.last_step_s)


# Folders ----------------------------------------------------------------------------------------------------


def _folder(folder: Path, note: Note) -> list[Trace]:
    """The uplink traces below a folder; ``note`` receives a line about everything else."""
    traces, skipped, broken = [], list[str](), list[str]()
    for path in _files_below(folder, broken):
        name = shown(path.relative_to(folder))
        try:
            series = _read(path)
        except NoTrace:
            skipped.append(f"{name} (not a trace)")
        except UsageError as error:
            broken.append(str(error))
        else:
            if series.downlink or _DOWNLINK.search(path.stem.lower()) or path.suffix.lower() == ".down":
                skipped.append(f"{name} (a downlink; name the file itself to use it)")
            else:
                traces.append(_trace(path, series))
    if not traces:
        found = f"; skipped: {_first_names(broken + skipped)}" if broken or skipped else ""
        raise UsageError(f"{shown(folder)}: got a directory without traces{found}; expected {EXPECTED}")
    _note_skipped(folder, skipped, broken, note)
    return traces


def _note_skipped(folder: Path, skipped: list[str], broken: list[str], note: Note) -> None:
    for line in broken[:MOST_NAMED]:
        note(f"trace skipped: {line}")
    if len(broken) > MOST_NAMED:
        note(f"{len(broken) - MOST_NAMED} more traces below {shown(folder)} cannot be read")
    if skipped:
        note(f"{shown(folder)}: skipped {_first_names(skipped)}")


def _first_names(names: list[str]) -> str:
    more = f" and {len(names) - MOST_NAMED} more" if len(names) > MOST_NAMED else ""
    return ", ".join(names[:MOST_NAMED]) + more


def _files_below(folder: Path, broken: list[str]) -> list[Path]:
    """Files that are not hidden, in sorted order. Errors of folders that cannot be listed are added to ``broken``."""

    def unlisted(error: OSError) -> None:
        if str(error.filename) == str(folder):
            raise UsageError(f"{shown(folder)}: got {error.strerror}; expected a folder that can be read")
        broken.append(f"{shown(error.filename)}: {error.strerror}")

    found: list[Path] = []
    for parent, folders, names in os.walk(folder, onerror=unlisted):
        folders[:] = [name for name in folders if not name.startswith(".")]
        paths = (Path(parent, name) for name in names if not name.startswith("."))
        found += (path for path in paths if path.is_file())
        if len(found) > MOST_FILES:
            raise UsageError(f"{shown(folder)}: got more than {MOST_FILES} files; expected a folder of traces")
    return sorted(found)


# Files ------------------------------------------------------------------------------------------------------


def _read(path: Path) -> Series:
    name = shown(path)
    try:
        data = _bytes_of(path)
    except (OSError, ValueError) as error:
        why = getattr(error, "strerror", None) or error
        raise UsageError(f"{name}: got {why}; expected a readable trace file, or a rate such as 16kbit") from None
    if len(data) > MOST_BYTES:
        raise NoTrace(f"{name}: got a file of more than {MOST_BYTES >> 20} MiB; expected {EXPECTED}")
    return read_text(_text(name, _decoded(name, data)))


def _bytes_of(path: Path) -> bytes:
    """The content, cut off one byte after MOST_BYTES. A pipe is read to its end; TimeoutError if it falls silent."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    with os.fdopen(descriptor, "rb", 0) as file:
        if not stat.S_ISFIFO(os.fstat(descriptor).st_mode):
            return _all_of(file.read)
        return _all_of(lambda limit: _from_pipe(descriptor, limit))


def _all_of(read: Callable[[int], bytes | None]) -> bytes:
    data = bytearray()
    while len(data) <= MOST_BYTES and (more := read(MOST_BYTES + 1 - len(data))):
        data += more
    return bytes(data)


def _from_pipe(descriptor: int, limit: int) -> bytes:
    poll = select.poll()
    poll.register(descriptor, select.POLLIN)
    end_s = time.monotonic() + PIPE_WAIT_S
    while time.monotonic() < end_s:
        if poll.poll(50):
            return os.read(descriptor, limit)
    raise TimeoutError(0, f"nothing from the pipe for {PIPE_WAIT_S:g} s")


def _decoded(name: str, data: bytes) -> str:
    """Decode UTF-8, UTF-16 with a byte order mark (PowerShell writes it), or else Latin-1."""
    try:
        if data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
            text = data.decode("utf-16")
            return text if text[:1].isascii() else _binary(name)
        return data.decode("utf-8-sig")
    except UnicodeDecodeError:
        return _binary(name) if b"\0" in data else data.decode("latin-1")


def _binary(name: str) -> str:
    raise NoTrace(f"{name}: got a binary file; expected {EXPECTED}")


def _text(name: str, text: str) -> Text:
    """The lines without empty ones and comments. A comment in the first line is kept if it is the header of a table."""
    numbered = [(number, line.strip()) for number, line in enumerate(text.splitlines(), start=1)]
    rows = [row for row in numbered if row[1]]
    rows = [row for index, row in enumerate(rows) if not row[1].startswith("#") or (index == 0 and columns_of(row[1]))]
    if not rows:
        raise NoTrace(f"{name}: got an empty file; expected {EXPECTED}")
    return Text(name, [number for number, _ in rows], [line for _, line in rows])
