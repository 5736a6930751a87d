"""Formats of bandwidth traces. ``FORMATS`` is the table; the first format that fits reads the file.

A trace is uplink bandwidth over time: a value holds until the time of the next one. Times count from the first line,
so epoch times are accepted. A file that states both directions is read for its uplink.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from runtime.traces.iperf import is_iperf_json, is_iperf_text, read_iperf_json, read_iperf_text
from runtime.traces.logs import is_log, is_mahimahi, read_log, read_mahimahi
from runtime.traces.tables import is_table, is_two_columns, read_table, read_two_columns
from runtime.traces.text import NoTrace, Series, Text, short


@dataclass(frozen=True)
class Format:
    """A format of trace files: how to recognise it, and how to read it."""

    name: str
    help: str
    fits: Callable[[Text], bool]
    read: Callable[[Text], Series]


def read_text(text: Text) -> Series:
    """Read a file in the first format that fits; NoTrace when none does, UsageError for a malformed line."""
    for format_ in FORMATS:
        if format_.fits(text):
            return format_.read(text)
    at = f"{text.name}:{text.numbers[0]}"
    raise NoTrace(f"{at}: got {short(text.lines[0])!r}; expected {EXPECTED}")


#: The formats, most specific first.
FORMATS = (
    Format("iperf3 JSON", "iperf3 -J or --json-stream", is_iperf_json, read_iperf_json),
    Format("iperf log", "the text that iperf prints, a line per interval", is_iperf_text, read_iperf_text),
    Format("mahimahi", "a mahimahi file (one millisecond a line)", is_mahimahi, read_mahimahi),
    Format("HSDPA or LTE log", "a six-column log (HSDPA, Ghent LTE)", is_log, read_log),
    Format(
        "two columns", "two columns without a header, seconds and Mbit/s (Pensieve)", is_two_columns, read_two_columns
    ),
    Format(
        "table",
        "a table whose header names a time and a bandwidth with its unit, such as t_s,uplink_mbps or timestamp,kbps",
        is_table,
        read_table,
    ),
)
#: Used by the help, the error messages and the documentation.
EXPECTED = "one of: " + "; ".join(format_.help for format_ in FORMATS)
TRACE_HELP = "A trace is " + EXPECTED + "; or a constant rate instead of a file, such as 16kbit or 2.5mbit."
