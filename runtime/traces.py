"""How is a recorded uplink read? Three text formats, told apart by content, into one TraceBank.

- CSV with the header ``t_s,uplink_mbps``: the value holds until the time of the next line.
- mahimahi packet files (mm-link(1)): one whole number of milliseconds a line, repeated as often as a 1500-byte
  packet could leave in that millisecond; the last one is the length of the trace.
- logs of Riiser et al. (MMSys 2013, HSDPA) and van der Hooft et al. (IEEE Comm. Letters 2016, LTE): six columns,
  epoch time, milliseconds on a monotonic clock, latitude, longitude, bytes and milliseconds since the line before.

The name of a trace is ``FOLDER/FILE``: the folder names the family that it was recorded with.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike

from controller.errors import UsageError
from controller.records import Floats
from controller.uplink import Trace, TraceBank

CSV_HEADER = "t_s,uplink_mbps"
MAHIMAHI_PACKET_BITS = 1500 * 8
#: A phone's radio schedules in milliseconds; bins this long keep its bursts without one value per packet.
MAHIMAHI_BIN_MS = 100
#: A single value has no next time that would end it.
SINGLE_VALUE_S = 1.0
#: What a directory is searched for. A file that is named explicitly may be called anything.
TRACE_SUFFIXES = (".csv", ".log", ".up", ".down", ".pps", ".trace", ".txt")

_EXPECTED = f"the CSV header {CSV_HEADER!r}, a mahimahi file (one millisecond a line) or a six-column log"


def load_traces(paths: str | Path | Iterable[str | Path]) -> TraceBank:
    """All traces of the given files and of the files below the given directories, in sorted order."""
    given = [paths] if isinstance(paths, str | Path) else list(paths)
    files = [file for path in given for file in _files_of(Path(path))]
    if not files:
        raise UsageError(f"got no trace path; expected files or directories with {' '.join(TRACE_SUFFIXES)}")
    return TraceBank([read_trace(file) for file in files])


def _files_of(path: Path) -> list[Path]:
    if not path.is_dir():
        return [path]
    found = sorted(
        file
        for file in path.rglob("*")
        if file.suffix.lower() in TRACE_SUFFIXES and not file.name.startswith(".") and file.is_file()
    )
    if not found:
        raise UsageError(f"{path}: got a directory without traces; expected {' '.join(TRACE_SUFFIXES)} below it")
    return found


def read_trace(path: str | Path) -> Trace:
    """One trace of any of the three formats; UsageError names file, line, what was got and what was expected."""
    path = Path(path)
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except OSError as error:
        raise UsageError(f"{path}: got {error.strerror or error}; expected a readable trace file") from None
    except UnicodeDecodeError:
        raise UsageError(f"{path}: got a binary file; expected {_EXPECTED}") from None
    rows = [(number, line.strip()) for number, line in enumerate(lines, start=1) if line.strip()]
    if not rows:
        raise UsageError(f"{path}: got an empty file; expected {_EXPECTED}")
    t_s, uplink_bps, last_step_s = _reader_of(path, *rows[0])(path, rows)
    folder = path.resolve().parent.name
    return Trace(f"{folder}/{path.stem}", t_s, uplink_bps, last_step_s)


Rows = Sequence[tuple[int, str]]  # line number and text
Series = tuple[Floats, Floats, float]  # times, bandwidths, length of the last step


def _reader_of(path: Path, number: int, first: str) -> Callable[[Path, Rows], Series]:
    """Which format is it? The first line decides."""
    if first.replace(" ", "").lower() == CSV_HEADER:
        return _read_csv
    fields = first.split()
    if len(fields) == 6:
        return _read_log
    if len(fields) == 1 and fields[0].isdigit():
        return _read_mahimahi
    raise _malformed(path, number, first, _EXPECTED)


def _read_csv(path: Path, rows: Rows) -> Series:
    values = _numbers(path, rows[1:], ",", 2, "two numbers, t_s and uplink_mbps")
    t_s, mbps = values.T
    _check(path, rows[1:], np.append(t_s[0] == 0, np.diff(t_s) > 0), "times from 0, each above the one before")
    _check(path, rows[1:], mbps >= 0, "uplink_mbps of 0 or more")
    last_step_s = t_s[-1] - t_s[-2] if len(t_s) > 1 else SINGLE_VALUE_S
    return t_s, mbps * 1e6, float(last_step_s)


def _read_mahimahi(path: Path, rows: Rows) -> Series:
    expected = "a whole number of milliseconds, not below the line before"
    at_ms = _numbers(path, rows, None, 1, expected)[:, 0]
    _check(path, rows, np.append(at_ms[0] >= 0, np.diff(at_ms) >= 0), expected)
    _check(path, rows, np.mod(at_ms, 1) == 0, expected)
    length_ms = at_ms[-1]
    if length_ms == 0:
        raise _malformed(path, *rows[-1], "a last line above 0, which is the length of the trace in milliseconds")
    bins = int(np.ceil(length_ms / MAHIMAHI_BIN_MS))
    # A packet at the very end of the trace leaves in its last bin.
    packets = np.bincount(np.minimum(at_ms // MAHIMAHI_BIN_MS, bins - 1).astype(np.int64), minlength=bins)
    t_ms = np.arange(bins) * float(MAHIMAHI_BIN_MS)
    step_ms = np.diff(np.append(t_ms, length_ms))
    return t_ms / 1e3, packets * MAHIMAHI_PACKET_BITS / (step_ms / 1e3), float(step_ms[-1] / 1e3)


def _read_log(path: Path, rows: Rows) -> Series:
    values = _numbers(path, rows, None, 6, "six numbers: epoch, ms, latitude, longitude, bytes, elapsed ms")
    received_bytes, elapsed_ms = values[:, 4], values[:, 5]
    _check(path, rows, elapsed_ms > 0, "elapsed milliseconds (column 6) above 0")
    _check(path, rows, received_bytes >= 0, "bytes (column 5) of 0 or more")
    step_s = elapsed_ms / 1e3
    t_s = np.append(0.0, np.cumsum(step_s)[:-1])
    return t_s, received_bytes * 8 / step_s, float(step_s[-1])


def _numbers(path: Path, rows: Rows, separator: str | None, columns: int, expected: str) -> Floats:
    """(n, columns) finite numbers; the first line that is not so is the error."""
    if not rows:
        raise UsageError(f"{path}: got only a header; expected lines with {expected}")
    values = np.empty((len(rows), columns))
    for index, (number, line) in enumerate(rows):
        fields = line.split(separator)
        try:
            if len(fields) != columns:  # numpy would repeat a single number over all columns
                raise ValueError
            values[index] = [float(field) for field in fields]
        except ValueError:
            raise _malformed(path, number, line, expected) from None
    _check(path, rows, np.isfinite(values).all(axis=1), expected)
    return values


def _check(path: Path, rows: Rows, good: ArrayLike, expected: str) -> None:
    if not np.all(good):
        raise _malformed(path, *rows[int(np.argmin(good))], expected)


def _malformed(path: Path, number: int, line: str, expected: str) -> UsageError:
    shown = line if len(line) <= 60 else f"{line[:57]}..."
    return UsageError(f"{path}:{number}: got {shown!r}; expected {expected}")
