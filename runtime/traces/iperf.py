"""Reports of iperf: the JSON of iperf3, and the text that iperf 2 and 3 print."""

from __future__ import annotations

import json
import re
from typing import Any

import numpy as np

from controller.errors import UsageError
from controller.records import Floats
from runtime.traces.text import (
    LONGEST_S,
    MOST_BPS,
    SI_PREFIX,
    SINGLE_VALUE_S,
    NoTrace,
    Series,
    Text,
    checked,
)


def is_iperf_json(text: Text) -> bool:
    """Whether the file begins like a JSON object."""
    return text.lines[0].startswith("{")


def read_iperf_json(text: Text) -> Series:
    """Read ``iperf3 -J`` and ``--json-stream``. The client sends (an uplink), unless the test was reversed."""
    try:
        intervals, is_reversed = _iperf_intervals(text)
        sums = [interval["sum"] for interval in intervals if not interval["sum"].get("omitted")]
        sums = [one for one in sums if one["seconds"] > 0]
        values = np.array([[one["start"], one["seconds"], one["bits_per_second"]] for one in sums], dtype=float)
    except (ValueError, OverflowError, RecursionError, LookupError, TypeError, AttributeError):
        raise NoTrace(f"{text.name}: got JSON that is not an iperf3 report; expected the output of iperf3 -J") from None
    if not len(values):
        raise UsageError(f"{text.name}: got an iperf3 report without intervals; expected one of a completed test")
    _check_intervals(text, values)
    t_s, step_s, bps = values.T
    return Series(t_s - t_s[0], bps, float(step_s[-1]), is_reversed)


def _iperf_intervals(text: Text) -> tuple[list[Any], bool]:
    """The intervals of a report, and whether the server was the sender."""
    whole = "\n".join(text.lines)
    try:
        report = json.loads(whole)
        start, intervals = report["start"], report["intervals"]
    except (ValueError, LookupError):  # --json-stream: one event per line
        events = [json.loads(line) for line in text.lines]
        start = next((event["data"] for event in events if event["event"] == "start"), {})
        intervals = [event["data"] for event in events if event["event"] == "interval"]
    return intervals, bool(start.get("test_start", {}).get("reverse"))


def _check_intervals(text: Text, values: Floats) -> None:
    """Check (n, 3) start, seconds, bit/s. Errors name the interval, because JSON has no meaningful line numbers."""
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


def is_iperf_text(text: Text) -> bool:
    """Whether one of the first 50 lines is an interval of iperf."""
    return any(_IPERF_LINE.match(line) for line in text.lines[:50])


def read_iperf_text(text: Text) -> Series:
    """Read the text that iperf and iperf3 print, a line per interval. For parallel streams the [SUM] lines are used."""
    found = [(i, match) for i, line in enumerate(text.lines) if (match := _IPERF_LINE.match(line))]
    ids = {match["id"] for _, match in found}
    wanted = "SUM" if "SUM" in ids else next(iter(sorted(ids)))
    kept = [(i, m) for i, m in found if m["id"] == wanted and not re.search(r"sender|receiver|omitted", m["rest"])]
    if len(kept) > 1 and float(kept[-1][1]["start"]) == float(kept[0][1]["start"]):
        kept = kept[:-1]  # iperf 2 ends with a line for the whole test
    if not kept or (len(ids - {"SUM"}) > 1 and wanted != "SUM"):
        raise UsageError(f"{text.name}: got an iperf log without exactly one stream; expected one, or [SUM] lines")
    values = np.array([[float(m["start"]), float(m["end"]), float(m["rate"])] for _, m in kept])
    units = [SI_PREFIX[m["unit"].lower()] for _, m in kept]
    part = Text(text.name, [text.numbers[i] for i, _ in kept], [text.lines[i] for i, _ in kept])
    series = checked(part, values[:, 0] - values[0, 0], values[:, 2] * units, 0)
    is_reversed = any("Reverse mode" in line for line in text.lines)
    return Series(series.t_s, series.bps, float(values[-1, 1] - values[-1, 0]) or SINGLE_VALUE_S, is_reversed)
