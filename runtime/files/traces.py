"""Find the traces that a user named, and read them into one TraceBank. ``runtime.files.trace_formats`` has the
formats.

A file that is named must be a trace. In a folder everything that is one is read; what is no trace, cannot be read or
is only a downlink is passed over, and said. The name of a trace is ``FOLDER/FILE``: the folder names the family that it
was recorded with.
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

from controller.errors import UsageError
from controller.predict.uplink import Trace, TraceBank
from runtime.files.masking import shown
from runtime.files.trace_formats import EXPECTED, NoTrace, Series, Text, columns_of, read_text

MOST_BYTES = 64 << 20
MOST_FILES = 20_000
#: Files that are passed over and named; more are only counted.
MOST_NAMED = 5
#: Longest that a pipe may be silent.
PIPE_WAIT_S = 5.0
_DOWNLINK = re.compile(r"^downlink|(?:^|[-_. ])(?:down|downlink|dl)$")

Note = Callable[[str], None]


def _say(line: str) -> None:
    print(f"mecpilot: {line}", file=sys.stderr, flush=True)


def load_traces(paths: str | Path | Iterable[str | Path], note: Note = _say) -> TraceBank:
    """All traces of the given files and of the files below the given folders, in sorted order."""
    given = [paths] if isinstance(paths, str | Path) else list(paths)
    if not given:
        raise UsageError("got no trace path; expected files or folders")
    return TraceBank([trace for path in given for trace in _traces_of(Path(path), note)])


def _traces_of(path: Path, note: Note) -> list[Trace]:
    return _folder(path, note) if path.is_dir() else [read_trace(path)]


def read_trace(path: str | Path) -> Trace:
    """One trace in any of the formats; UsageError names file, line, what was got and what was expected."""
    return _trace(Path(path), _read(Path(path)))


def _trace(path: Path, series: Series) -> Trace:
    return Trace(f"{path.resolve().parent.name}/{path.stem}", series.t_s, series.bps, series.last_step_s)


# Folders ----------------------------------------------------------------------------------------------------


def _folder(folder: Path, note: Note) -> list[Trace]:
    """The uplinks below a folder, and a note on everything else that is in it."""
    traces, passed, spoilt = [], list[str](), list[str]()
    for path in _files_below(folder, spoilt):
        name = shown(path.relative_to(folder))
        try:
            series = _read(path)
        except NoTrace:
            passed.append(f"{name} (no trace)")
        except UsageError as error:
            spoilt.append(str(error))
        else:
            if series.downlink or _DOWNLINK.search(path.stem.lower()) or path.suffix.lower() == ".down":
                passed.append(f"{name} (a downlink; name the file itself to use it)")
            else:
                traces.append(_trace(path, series))
    if not traces:
        raise UsageError(_nothing(folder, spoilt + passed))
    _note_all(folder, passed, spoilt, note)
    return traces


def _nothing(folder: Path, passed: list[str]) -> str:
    found = f"; passed over: {_some(passed)}" if passed else ""
    return f"{shown(folder)}: got a directory without traces{found}; expected {EXPECTED}"


def _note_all(folder: Path, passed: list[str], spoilt: list[str], note: Note) -> None:
    for line in spoilt[:MOST_NAMED]:
        note(f"trace passed over: {line}")
    if len(spoilt) > MOST_NAMED:
        note(f"{len(spoilt) - MOST_NAMED} more traces below {shown(folder)} cannot be read")
    if passed:
        note(f"{shown(folder)}: passed over {_some(passed)}")


def _some(names: list[str]) -> str:
    more = f" and {len(names) - MOST_NAMED} more" if len(names) > MOST_NAMED else ""
    return ", ".join(names[:MOST_NAMED]) + more


def _files_below(folder: Path, spoilt: list[str]) -> list[Path]:
    """Files that are not hidden, in sorted order; what cannot be listed goes to ``spoilt``."""

    def unlisted(error: OSError) -> None:
        if str(error.filename) == str(folder):
            raise UsageError(f"{shown(folder)}: got {error.strerror}; expected a folder that can be read")
        spoilt.append(f"{shown(error.filename)}: {error.strerror}")

    found: list[Path] = []
    for place, folders, names in os.walk(folder, onerror=unlisted):
        folders[:] = [name for name in folders if not name.startswith(".")]
        paths = (Path(place, name) for name in names if not name.startswith("."))
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
        raise UsageError(f"{name}: got {why}; expected a readable trace file") from None
    if len(data) > MOST_BYTES:
        raise NoTrace(f"{name}: got a file of more than {MOST_BYTES >> 20} MiB; expected {EXPECTED}")
    return read_text(_text(name, _decoded(name, data)))


def _bytes_of(path: Path) -> bytes:
    """At most one byte too many. Of a pipe what comes without long pauses."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    with os.fdopen(descriptor, "rb", 0) as file:
        if not stat.S_ISFIFO(os.fstat(descriptor).st_mode):
            return _all_of(file.read)
        return _all_of(lambda most: _from_pipe(descriptor, most))


def _all_of(read: Callable[[int], bytes | None]) -> bytes:
    data = bytearray()
    while len(data) <= MOST_BYTES and (more := read(MOST_BYTES + 1 - len(data))):
        data += more
    return bytes(data)


def _from_pipe(descriptor: int, most: int) -> bytes:
    poll = select.poll()
    poll.register(descriptor, select.POLLIN)
    end_s = time.monotonic() + PIPE_WAIT_S
    while time.monotonic() < end_s:
        if poll.poll(50):
            return os.read(descriptor, most)
    raise TimeoutError(0, f"nothing from the pipe for {PIPE_WAIT_S:g} s")


def _decoded(name: str, data: bytes) -> str:
    """Text in UTF-8, in UTF-16 with a byte order mark (PowerShell), or in a one-byte code."""
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
    """Without empty lines and comments; a comment in the first line may be the header of a table."""
    numbered = [(number, line.strip()) for number, line in enumerate(text.splitlines(), start=1)]
    rows = [row for row in numbered if row[1]]
    rows = [row for index, row in enumerate(rows) if not row[1].startswith("#") or (index == 0 and columns_of(row[1]))]
    if not rows:
        raise NoTrace(f"{name}: got an empty file; expected {EXPECTED}")
    return Text(name, [number for number, _ in rows], [line for _, line in rows])
