"""Formats of bandwidth traces. ``FORMATS`` is the table; the first format that fits reads the file.

A trace is uplink bandwidth over time: a value holds until the time of the next one. Times are counted from the first
line, so epoch times are as good as any. A file that states both directions is read for its uplink.
"""

from __future__ import annotations

import csv
import json
import math
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from controller.errors import UsageError
from controller.records import Floats
from runtime.files.masking import shown

MAHIMAHI_PACKET_BITS = 1500 * 8
#: A phone's radio schedules in milliseconds; bins this long keep its bursts without one value per packet.
MAHIMAHI_BIN_MS = 100
#: A single value has no next time that would end it.
SINGLE_VALUE_S = 1.0
#: What a file states must stay within these: memory is taken in proportion to them.
LONGEST_MAHIMAHI_MS = 48 * 3_600_000
LONGEST_S = 31 * 86_400.0
MOST_BPS = 1e12


class NoTrace(UsageError):
    """The file is in no format that is read here."""


@dataclass(frozen=True)
class Text:
    """The lines of a file that are neither empty nor comments."""

    name: str  # of the file, for messages
    numbers: Sequence[int]
    lines: Sequence[str]

    def malformed(self, index: int, expected: str) -> UsageError:
        return UsageError(f"{self.name}:{self.numbers[index]}: got {_short(self.lines[index])!r}; expected {expected}")

    def check(self, good: ArrayLike, expected: str, first: int = 0) -> None:
        """UsageError that names the first line for which ``good`` is false; ``first``: the line of the first value."""
        if not np.all(good):
            raise self.malformed(first + int(np.argmin(good)), expected)


@dataclass(frozen=True)
class Series:
    """What a file says: ``bps[i]`` from ``t_s[i]`` on, the last value for ``last_step_s``."""

    t_s: Floats
    bps: Floats
    last_step_s: float
    downlink: bool = False  # there is nothing but a downlink in it


@dataclass(frozen=True)
class Format:
    """One way to write a trace down."""

    name: str
    help: str
    fits: Callable[[Text], bool]
    read: Callable[[Text], Series]


def read_text(text: Text) -> Series:
    """The series of a file in whichever format it is."""
    for format_ in FORMATS:
        if format_.fits(text):
            return format_.read(text)
    at = f"{text.name}:{text.numbers[0]}"
    raise NoTrace(f"{at}: got {_short(text.lines[0])!r}; expected {EXPECTED}")


# Tables -----------------------------------------------------------------------------------------------------

#: Names of columns without a unit whose unit is known: the Irish 4G and 5G data sets (Raca et al., MMSys 2018, 2020).
KNOWN_COLUMNS = {"ul_bitrate": 1e3, "dl_bitrate": 1e3}
_BYTES = re.compile(r"(?:^|[^A-Za-z])([KMGkmg]?)i?(?:B(?:ps|/s|_per_s)|[Bb]ytes?[ _]?(?:/|per)[ _]?s)")
_BITS = re.compile(
    r"(?:^|[^a-z]|ul|dl|up|down|link|load)(k|m|g|kilo|mega|giga)?(?:bps|b/s|bits?[ _]?(?:/|per)[ _]?s|bitps)"
)
_UP = re.compile(r"(?:^|[^a-z])(?:ul|up|tx|sent|send)|uplink|upload|upstream")
_DOWN = re.compile(r"(?:^|[^a-z])(?:dl|down|rx|rec)|downlink|download|downstream")
_TIME_WORDS = r"(?:t|ts|times?|timestamps?|datetime|date|epoch|elapsed|utc|seconds?|secs?|s|ms|msec)"
_TIME = re.compile(rf"{_TIME_WORDS}(?:[^a-z].*)?|.*[^a-z](?:time|timestamp)(?:[^a-z].*)?")
_NAME = re.compile(r"[\w\s./()\[\]%:\"'-]{1,40}")
_TIME_UNITS = (
    (re.compile(r"(?:^|[^a-z])(?:ms|msecs?|milli\w*)(?:[^a-z]|$)"), 1e-3),
    (re.compile(r"(?:^|[^a-z])(?:us|usecs?|micro\w*)(?:[^a-z]|$)"), 1e-6),
    (re.compile(r"(?:^|[^a-z])(?:ns|nsecs?|nano\w*)(?:[^a-z]|$)"), 1e-9),
    (re.compile(r"(?:^|[^a-z])(?:s|secs?|seconds?)(?:[^a-z]|$)"), 1.0),
)
#: Epoch times in units of less than a second are this large; no trace is that long.
_EPOCH_UNITS = ((1e17, 1e-9), (1e14, 1e-6), (1e11, 1e-3))
_SCALE = {"": 1.0, "k": 1e3, "m": 1e6, "g": 1e9}
_DATE_FORMATS = ("%Y.%m.%d_%H.%M.%S", "%Y/%m/%d %H:%M:%S", "%Y/%m/%d %H:%M:%S.%f", "%H:%M:%S", "%H:%M:%S.%f")


@dataclass(frozen=True)
class _Columns:
    """Which columns of a table are the time and the bandwidth."""

    separator: str | None  # None: blanks
    width: int
    time: int
    time_unit: float | None  # s; None: by the size of the numbers
    rate: int
    rate_unit: float  # bit/s
    downlink: bool


def columns_of(header: str) -> _Columns | None:
    """What a header says; None when it names no time or no bandwidth."""
    separator = _separator(header)
    names = [name.strip() for name in _split(header.lstrip("# "), separator)]
    rates = [i for i, name in enumerate(names) if _rate_unit(name) is not None]
    times = [i for i, name in enumerate(names) if _TIME.fullmatch(name.lower()) and i not in rates]
    if not times or not rates or not all(_NAME.fullmatch(name) and _number(name) is None for name in names if name):
        return None
    # Most likely the time: not a date beside a time of day, nor a round_trip_time.
    time = min(times, key=lambda i: (names[i].lower() == "date", not re.match(_TIME_WORDS, names[i].lower()), i))
    unit = next((unit for pattern, unit in _TIME_UNITS if pattern.search(names[time].lower())), None)
    rate = _uplink_of(rates, names)
    downlink = _DOWN.search(_words(names[rate])) is not None and not _UP.search(_words(names[rate]))
    return _Columns(separator, len(names), time, unit, rate, _rate_unit(names[rate]) or 1.0, downlink)


def _words(name: str) -> str:
    """In lower case, uplinkMbps as uplink_mbps."""
    return re.sub(r"(?<=[a-z])(?=[A-Z])", "_", name).lower()


def _uplink_of(rates: list[int], names: list[str]) -> int:
    """The column of the uplink: one that is called so, else the only one that is not a downlink."""
    up = [i for i in rates if _UP.search(_words(names[i]))]
    plain = [i for i in rates if i not in up and not _DOWN.search(_words(names[i]))]
    best = up or plain or rates
    if len(best) > 1:
        raise UsageError(f"got the bandwidth columns {', '.join(names[i] for i in best)}; expected one of an uplink")
    return best[0]


def _rate_unit(name: str) -> float | None:
    """How many bit/s one is, by the name of the column."""
    if (known := KNOWN_COLUMNS.get(name.lower())) is not None:
        return known
    if found := _BYTES.search(name):
        return 8 * _SCALE[found[1].lower()]
    return _SCALE[(found[1] or "")[:1]] if (found := _BITS.search(_words(name))) else None


def _is_table(text: Text) -> bool:
    try:
        return columns_of(text.lines[0]) is not None
    except UsageError:
        return True


def _read_table(text: Text) -> Series:
    try:
        columns = columns_of(text.lines[0])
    except UsageError as error:
        raise UsageError(f"{text.name}:{text.numbers[0]}: {error}") from None
    assert columns is not None
    return _table(text, columns, 1)


def _is_two_columns(text: Text) -> bool:
    """Two numbers, as Pensieve's traces have them."""
    fields = _split(text.lines[0], _separator(text.lines[0]))
    return len(fields) == 2 and all(_decimal(field, True) is not None for field in fields)


def _read_two_columns(text: Text) -> Series:
    return _table(text, _Columns(_separator(text.lines[0]), 2, 0, None, 1, 1e6, False), 0)


def _table(text: Text, columns: _Columns, first: int) -> Series:
    """The lines from ``first`` on."""
    if len(text.lines) == first:
        raise UsageError(f"{text.name}: got only a header; expected lines with a time and a bandwidth")
    rows = [_row(text, index, columns) for index in range(first, len(text.lines))]
    commas = columns.separator != "," and _decimal_commas(text, rows, first)
    bps = columns.rate_unit * _numbers(text, [rate for _, rate in rows], commas, first)
    is_clock = _decimal(rows[0][0], commas) is None
    t_s = _moments(text, rows, first) if is_clock else _seconds(text, rows, columns.time_unit, commas, first)
    return _checked(text, t_s, bps, first, columns.downlink, merge=is_clock)


def _row(text: Text, index: int, columns: _Columns) -> tuple[str, str]:
    """Time and bandwidth as written."""
    fields = _split(text.lines[index], columns.separator)
    if len(fields) < columns.width or any(field.strip() for field in fields[columns.width :]):
        raise text.malformed(index, f"{columns.width} columns, as in the first line")
    return fields[columns.time].strip(), fields[columns.rate].strip()


def _seconds(text: Text, rows: list[tuple[str, str]], unit: float | None, commas: bool, first: int) -> Floats:  # (n,)
    times = _numbers(text, [time for time, _ in rows], commas, first)
    if unit is None:
        unit = next((unit for least, unit in _EPOCH_UNITS if times[0] >= least), 1.0)
    return np.asarray((times - times[0]) * unit)  # the origin first: an epoch in ns has no digits to spare


def _moments(text: Text, rows: list[tuple[str, str]], first: int) -> Floats:
    times = np.empty(len(rows))
    for index, (time, _) in enumerate(rows):
        if (at_s := _moment(time)) is None:
            raise text.malformed(first + index, "a time in seconds, or one such as 2024-05-01T12:30:00")
        times[index] = at_s
    return np.asarray(times - times[0])


def _moment(text: str) -> float | None:
    """A date and time as seconds; UTC where no zone is named."""
    for parse in (datetime.fromisoformat, *(_parser(form) for form in _DATE_FORMATS)):
        try:
            moment = parse(text)
            return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
        except (ValueError, OverflowError):
            continue
    return None


def _parser(form: str) -> Callable[[str], datetime]:
    return lambda text: datetime.strptime(text, form)


def _separator(line: str) -> str | None:
    """What stands between the columns; None: blanks."""
    for separator in (";", "\t", "|"):
        if separator in line:
            return separator
    # "0,5 1,2" has blanks between the columns, "0, 5" and "a b,c d" have commas.
    return "," if "," in line and not re.fullmatch(r"\d+,\d+\s+\d+,\d+", line) else None


def _split(line: str, separator: str | None) -> list[str]:
    if separator is None or '"' not in line:
        return line.split(separator)
    return next(csv.reader([line], delimiter=separator, skipinitialspace=True), [])


def _numbers(text: Text, fields: Iterable[str], commas: bool, first: int) -> Floats:
    values = [_decimal(field, commas) for field in fields]
    text.check([value is not None and math.isfinite(value) for value in values], "finite numbers", first)
    return np.array(values, dtype=float)


def _number(field: str) -> float | None:
    try:
        return None if "_" in field else float(field)
    except ValueError:
        return None


def _decimal(field: str, commas: bool) -> float | None:
    return _number(field.replace(",", ".", 1) if commas else field)


def _decimal_commas(text: Text, rows: list[tuple[str, str]], first: int) -> bool:
    """Whether a comma is a decimal point in this file; UsageError when it may as well separate thousands."""
    fields = [(field, index) for index, row in enumerate(rows) for field in row if "," in field]
    if not fields or not all(_decimal(field, True) is not None for field, _ in fields):
        return False
    if all(re.fullmatch(r"[+-]?[1-9]\d{0,2},\d{3}", field) for field, _ in fields):
        raise text.malformed(first + fields[0][1], "a decimal point: 1,500 may be 1.5 or 1500")
    return True


# Other formats ----------------------------------------------------------------------------------------------


def _is_mahimahi(text: Text) -> bool:
    return text.lines[0].isascii() and text.lines[0].isdigit()


def _read_mahimahi(text: Text) -> Series:
    """mm-link(1): the n-th line is when the n-th packet of 1500 bytes could leave, the last line also the end."""
    expected = "a whole number of milliseconds, not below the line before"
    at_ms = _numbers(text, text.lines, False, 0)
    text.check(np.append(at_ms[0] >= 0, np.diff(at_ms) >= 0), expected)
    text.check(np.mod(at_ms, 1) == 0, expected)
    if at_ms[0] > LONGEST_MAHIMAHI_MS:
        at_ms = at_ms - at_ms[0]  # epoch times
    length_ms = at_ms[-1]
    if length_ms == 0:
        raise text.malformed(-1, "a last line above 0, which is the length of the trace in milliseconds")
    if length_ms > LONGEST_MAHIMAHI_MS:
        raise text.malformed(-1, f"a trace of at most {LONGEST_MAHIMAHI_MS:.0f} ms")
    bins = int(np.ceil(length_ms / MAHIMAHI_BIN_MS))
    # A packet at the very end of the trace leaves in its last bin.
    packets = np.bincount(np.minimum(at_ms // MAHIMAHI_BIN_MS, bins - 1).astype(np.int64), minlength=bins)
    t_ms = np.arange(bins) * float(MAHIMAHI_BIN_MS)
    step_ms = np.diff(np.append(t_ms, length_ms))
    return Series(t_ms / 1e3, packets * MAHIMAHI_PACKET_BITS / (step_ms / 1e3), float(step_ms[-1] / 1e3))


def _is_log(text: Text) -> bool:
    fields = text.lines[0].split()
    return len(fields) == 6 and all(_number(field) is not None for field in fields)


def _read_log(text: Text) -> Series:
    """Riiser et al. (MMSys 2013, HSDPA) and van der Hooft et al. (IEEE Comm. Letters 2016, LTE)."""
    expected = "six numbers: epoch, ms, latitude, longitude, bytes, elapsed ms"
    rows = [line.split() for line in text.lines]
    text.check([len(row) == 6 and None not in map(_number, row) for row in rows], expected)
    values = np.array(rows, dtype=float)
    text.check(np.isfinite(values).all(axis=1), expected)
    received_bytes, elapsed_ms = values[:, 4], values[:, 5]
    text.check(elapsed_ms > 0, "elapsed milliseconds (column 6) above 0")
    text.check(received_bytes >= 0, "bytes (column 5) of 0 or more")
    step_s = elapsed_ms / 1e3
    t_s = np.append(0.0, np.cumsum(step_s)[:-1])
    series = _checked(text, t_s, received_bytes * 8 / step_s, 0)
    return Series(series.t_s, series.bps, float(step_s[-1]))


def _is_iperf_json(text: Text) -> bool:
    return text.lines[0].startswith("{")


def _read_iperf_json(text: Text) -> Series:
    """``iperf3 -J`` and ``--json-stream``. The client sends, unless the test was reversed: an uplink by default."""
    try:
        intervals, is_reversed = _iperf_intervals(text)
        sums = [interval["sum"] for interval in intervals if not interval["sum"].get("omitted")]
        sums = [one for one in sums if one["seconds"] > 0]
        values = np.array([[one["start"], one["seconds"], one["bits_per_second"]] for one in sums], dtype=float)
    except (ValueError, OverflowError, RecursionError, LookupError, TypeError, AttributeError):
        raise NoTrace(f"{text.name}: got JSON that is not an iperf3 report; expected {EXPECTED}") from None
    if not len(values):
        raise UsageError(f"{text.name}: got a report of iperf3 without intervals; expected one of a test that ran")
    _check_intervals(text, values)
    t_s, step_s, bps = values.T
    return Series(t_s - t_s[0], bps, float(step_s[-1]), is_reversed)


def _iperf_intervals(text: Text) -> tuple[list[Any], bool]:
    """Intervals of a report, and whether the server sent."""
    whole = "\n".join(text.lines)
    try:
        report = json.loads(whole)
        start, intervals = report["start"], report["intervals"]
    except (ValueError, LookupError):  # one event a line
        events = [json.loads(line) for line in text.lines]
        start = next((event["data"] for event in events if event["event"] == "start"), {})
        intervals = [event["data"] for event in events if event["event"] == "interval"]
    return intervals, bool(start.get("test_start", {}).get("reverse"))


def _check_intervals(text: Text, values: Floats) -> None:
    """The n-th interval takes the place of the line, which JSON has none of."""
    t_s, _, bps = values.T
    good = np.isfinite(values).all(axis=1) & (bps >= 0) & (bps <= MOST_BPS) & np.append(True, np.diff(t_s) > 0)
    if not good.all() or t_s[-1] - t_s[0] > LONGEST_S:
        number = int(np.argmin(good)) + 1 if not good.all() else len(good)
        got = ", ".join(f"{value:g}" for value in values[number - 1])
        raise UsageError(
            f"{text.name}: interval {number} has start, seconds, bits_per_second {got}; expected ascending times "
            f"within {LONGEST_S / 86_400:.0f} days and 0 to {MOST_BPS:g} bit/s"
        )


_IPERF_LINE = re.compile(
    r"\[\s*(?P<id>\d+|SUM)\]\s+(?P<start>[\d.]+)-\s*(?P<end>[\d.]+)\s+sec\s+[\d.]+ [KMGT]?Bytes\s+"
    r"(?P<rate>[\d.]+) (?P<unit>[KMG]?)bits/sec(?P<rest>.*)"
)


def _is_iperf_text(text: Text) -> bool:
    return any(_IPERF_LINE.match(line) for line in text.lines[:50])


def _read_iperf_text(text: Text) -> Series:
    """What iperf and iperf3 print, a line per interval; of parallel streams the sums."""
    found = [(i, match) for i, line in enumerate(text.lines) if (match := _IPERF_LINE.match(line))]
    ids = {match["id"] for _, match in found}
    wanted = "SUM" if "SUM" in ids else next(iter(sorted(ids)))
    kept = [(i, m) for i, m in found if m["id"] == wanted and not re.search(r"sender|receiver|omitted", m["rest"])]
    if len(kept) > 1 and float(kept[-1][1]["start"]) == float(kept[0][1]["start"]):
        kept = kept[:-1]  # iperf 2 ends with a line for the whole test
    if not kept or (len(ids - {"SUM"}) > 1 and wanted != "SUM"):
        raise UsageError(f"{text.name}: got a log of iperf without one row of intervals; expected one, or [SUM] lines")
    values = np.array([[float(m["start"]), float(m["end"]), float(m["rate"])] for _, m in kept])
    units = [_SCALE[m["unit"].lower()] for _, m in kept]
    part = Text(text.name, [text.numbers[i] for i, _ in kept], [text.lines[i] for i, _ in kept])
    series = _checked(part, values[:, 0] - values[0, 0], values[:, 2] * units, 0)
    is_reversed = any("Reverse mode" in line for line in text.lines)
    return Series(series.t_s, series.bps, float(values[-1, 1] - values[-1, 0]) or SINGLE_VALUE_S, is_reversed)


# What all have in common ------------------------------------------------------------------------------------


def _checked(text: Text, t_s: Floats, bps: Floats, first: int, downlink: bool = False, merge: bool = False) -> Series:
    """With ``merge`` values of the same time, as clocks of whole seconds give them, become their mean."""
    text.check(bps >= 0, "a bandwidth of 0 or more", first)
    text.check(bps <= MOST_BPS, f"a bandwidth of at most {MOST_BPS / 1e6:g} Mbit/s", first)
    step_s = np.diff(t_s)
    text.check(np.append(True, step_s >= 0 if merge else step_s > 0), "a time above the one before", first)
    text.check(len(t_s) == 1 or t_s[-1] > 0, "times that go on", len(text.lines) - 1)
    text.check(t_s <= LONGEST_S, f"times within {LONGEST_S / 86_400:.0f} days", first)
    if merge:
        t_s, group, count = np.unique(t_s, return_inverse=True, return_counts=True)
        bps = np.bincount(group, bps) / count
    last_step_s = t_s[-1] - t_s[-2] if len(t_s) > 1 else SINGLE_VALUE_S
    return Series(t_s, bps, float(last_step_s), downlink)


def _short(line: str) -> str:
    return shown(line) if len(line) <= 60 else f"{shown(line[:57])}..."


#: The formats, most specific first.
FORMATS = (
    Format("iperf3 JSON", "iperf3 -J or --json-stream", _is_iperf_json, _read_iperf_json),
    Format("iperf log", "what iperf prints, a line per interval", _is_iperf_text, _read_iperf_text),
    Format("mahimahi", "a mahimahi file (one millisecond a line)", _is_mahimahi, _read_mahimahi),
    Format("HSDPA or LTE log", "a six-column log (HSDPA, Ghent LTE)", _is_log, _read_log),
    Format(
        "two columns", "two columns without a header, seconds and Mbit/s (Pensieve)", _is_two_columns, _read_two_columns
    ),
    Format(
        "table",
        "a table whose header names a time and a bandwidth with its unit, such as t_s,uplink_mbps or timestamp,kbps",
        _is_table,
        _read_table,
    ),
)
#: One place for help, errors and documentation.
EXPECTED = "one of: " + "; ".join(format_.help for format_ in FORMATS)
TRACE_HELP = "A trace is " + EXPECTED + "."
