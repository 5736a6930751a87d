"""Tables with a time column and a bandwidth column, found by their header; and headerless two-column files."""

from __future__ import annotations

import csv
import re
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime

import numpy as np

from controller.errors import UsageError
from controller.records import Floats
from runtime.traces.text import SI_PREFIX, Series, Text, checked, decimal, finite_numbers, number

#: bit/s of known columns without a unit in their name: the Irish 4G and 5G data sets (Raca et al., MMSys 2018, 2020).
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
#: (least first time, seconds per unit): so large a first time is an epoch time in ns, us or ms.
_EPOCH_UNITS = ((1e17, 1e-9), (1e14, 1e-6), (1e11, 1e-3))
_DATE_FORMATS = ("%Y.%m.%d_%H.%M.%S", "%Y/%m/%d %H:%M:%S", "%Y/%m/%d %H:%M:%S.%f", "%H:%M:%S", "%H:%M:%S.%f")


@dataclass(frozen=True)
class _Columns:
    """The time column and the bandwidth column of a table."""

    separator: str | None  # None: blanks
    width: int  # number of columns
    time: int  # index of the column
    time_unit: float | None  # in seconds; None: guessed from the size of the numbers
    rate: int  # index of the column
    rate_unit: float  # in bit/s
    downlink: bool


def columns_of(header: str) -> _Columns | None:
    """The columns that a header names; None when it names no time or no bandwidth.

    UsageError when several columns may be the uplink.
    """
    separator = _separator(header)
    names = [name.strip() for name in _split(header.lstrip("# "), separator)]
    rates = [i for i, name in enumerate(names) if _rate_unit(name) is not None]
    times = [i for i, name in enumerate(names) if _TIME.fullmatch(name.lower()) and i not in rates]
    if not times or not rates or not all(_NAME.fullmatch(name) and number(name) is None for name in names if name):
        return None
    # A time of day is preferred to a date beside it, and a name that begins with a time word to round_trip_time.
    time = min(times, key=lambda i: (names[i].lower() == "date", not re.match(_TIME_WORDS, names[i].lower()), i))
    unit = next((unit for pattern, unit in _TIME_UNITS if pattern.search(names[time].lower())), None)
    rate = _uplink_of(rates, names)
    downlink = _DOWN.search(_words(names[rate])) is not None and not _UP.search(_words(names[rate]))
    return _Columns(separator, len(names), time, unit, rate, _rate_unit(names[rate]) or 1.0, downlink)


def _words(name: str) -> str:
    """The name in lower case with words separated: uplinkMbps becomes uplink_mbps."""
    return re.sub(r"(?<=[a-z])(?=[A-Z])", "_", name).lower()


def _uplink_of(rates: list[int], names: list[str]) -> int:
    """Index of the uplink's column: the one named an uplink, else the only one that is not a downlink."""
    up = [i for i in rates if _UP.search(_words(names[i]))]
    plain = [i for i in rates if i not in up and not _DOWN.search(_words(names[i]))]
    best = up or plain or rates
    if len(best) > 1:
        raise UsageError(f"got the bandwidth columns {', '.join(names[i] for i in best)}; expected one of an uplink")
    return best[0]


def _rate_unit(name: str) -> float | None:
    """The unit in bit/s that the name of a column states; None when it states none."""
    if (known := KNOWN_COLUMNS.get(name.lower())) is not None:
        return known
    if found := _BYTES.search(name):
        return 8 * SI_PREFIX[found[1].lower()]
    return SI_PREFIX[(found[1] or "")[:1]] if (found := _BITS.search(_words(name))) else None


def is_table(text: Text) -> bool:
    """Whether the first line is the header of a table."""
    try:
        return columns_of(text.lines[0]) is not None
    except UsageError:
        return True


def read_table(text: Text) -> Series:
    """Read a table with a header."""
    try:
        columns = columns_of(text.lines[0])
    except UsageError as error:
        raise UsageError(f"{text.name}:{text.numbers[0]}: {error}") from None
    assert columns is not None
    return _table(text, columns, 1)


def is_two_columns(text: Text) -> bool:
    """Whether the first line is two numbers, as in Pensieve's traces."""
    fields = _split(text.lines[0], _separator(text.lines[0]))
    return len(fields) == 2 and all(decimal(field, True) is not None for field in fields)


def read_two_columns(text: Text) -> Series:
    """Read seconds and Mbit/s."""
    return _table(text, _Columns(_separator(text.lines[0]), 2, 0, None, 1, 1e6, False), 0)


def _table(text: Text, columns: _Columns, first: int) -> Series:
    """The series of the lines from index ``first`` on."""
    if len(text.lines) == first:
        raise UsageError(f"{text.name}: got only a header; expected lines with a time and a bandwidth")
    rows = [_row(text, index, columns) for index in range(first, len(text.lines))]
    commas = columns.separator != "," and _decimal_commas(text, rows, first)
    bps = columns.rate_unit * finite_numbers(text, [rate for _, rate in rows], commas, first)
    is_clock = decimal(rows[0][0], commas) is None
    t_s = _moments(text, rows, first) if is_clock else _seconds(text, rows, columns.time_unit, commas, first)
    return checked(text, t_s, bps, first, columns.downlink, merge=is_clock)


def _row(text: Text, index: int, columns: _Columns) -> tuple[str, str]:
    """The time field and the bandwidth field of a line."""
    fields = _split(text.lines[index], columns.separator)
    if len(fields) < columns.width or any(field.strip() for field in fields[columns.width :]):
        raise text.malformed(index, f"{columns.width} columns, as in the first line")
    return fields[columns.time].strip(), fields[columns.rate].strip()


def _seconds(text: Text, rows: list[tuple[str, str]], unit: float | None, commas: bool, first: int) -> Floats:  # (n,)
    times = finite_numbers(text, [time for time, _ in rows], commas, first)
    if unit is None:
        unit = next((unit for least, unit in _EPOCH_UNITS if times[0] >= least), 1.0)
    return np.asarray((times - times[0]) * unit)  # subtract first: an epoch time in ns uses all digits of a float


def _moments(text: Text, rows: list[tuple[str, str]], first: int) -> Floats:
    times = np.empty(len(rows))
    for index, (time, _) in enumerate(rows):
        if (at_s := _moment(time)) is None:
            raise text.malformed(first + index, "a time in seconds, or one such as 2024-05-01T12:30:00")
        times[index] = at_s
    return np.asarray(times - times[0])


def _moment(text: str) -> float | None:
    """A date and time in seconds since the epoch (UTC if no zone is named); None for any other text."""
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
    """The character between the columns; None for blanks."""
    for separator in (";", "\t", "|"):
        if separator in line:
            return separator
    # "0,5 1,2" has blanks between the columns, "0, 5" and "a b,c d" have commas.
    return "," if "," in line and not re.fullmatch(r"\d+,\d+\s+\d+,\d+", line) else None


def _split(line: str, separator: str | None) -> list[str]:
    if separator is None or '"' not in line:
        return line.split(separator)
    return next(csv.reader([line], delimiter=separator, skipinitialspace=True), [])


def _decimal_commas(text: Text, rows: list[tuple[str, str]], first: int) -> bool:
    """Whether a comma is the decimal point in this file; UsageError when it could also separate thousands."""
    fields = [(field, index) for index, row in enumerate(rows) for field in row if "," in field]
    if not fields or not all(decimal(field, True) is not None for field, _ in fields):
        return False
    if all(re.fullmatch(r"[+-]?[1-9]\d{0,2},\d{3}", field) for field, _ in fields):
        raise text.malformed(first + fields[0][1], "a decimal point: 1,500 may be 1.5 or 1500")
    return True
