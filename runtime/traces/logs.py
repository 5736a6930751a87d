"""Logs of research data sets: mahimahi packet times, and the six-column HSDPA and LTE logs."""

from __future__ import annotations

import numpy as np

from runtime.traces.text import Series, Text, checked, finite_numbers, number

MAHIMAHI_PACKET_BITS = 1500 * 8
#: Radio schedulers work in milliseconds; bins of this length keep the bursts without a value for each packet.
MAHIMAHI_BIN_MS = 100
LONGEST_MAHIMAHI_MS = 48 * 3_600_000


def is_mahimahi(text: Text) -> bool:
    """Whether the first line is a whole number."""
    return text.lines[0].isascii() and text.lines[0].isdigit()


def read_mahimahi(text: Text) -> Series:
    """mm-link(1): line n is the time at which packet n of 1500 bytes can leave; the last line also ends the trace."""
    expected = "a whole number of milliseconds, not below the line before"
    at_ms = finite_numbers(text, text.lines, False, 0)
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


def is_log(text: Text) -> bool:
    """Whether the first line has six numbers."""
    fields = text.lines[0].split()
    return len(fields) == 6 and all(number(field) is not None for field in fields)


def read_log(text: Text) -> Series:
    """Read the logs of Riiser et al. (MMSys 2013, HSDPA) and van der Hooft et al. (IEEE Comm. Letters 2016, LTE)."""
    expected = "six numbers: epoch, ms, latitude, longitude, bytes, elapsed ms"
    rows = [line.split() for line in text.lines]
    text.check([len(row) == 6 and None not in map(number, row) for row in rows], expected)
    values = np.array(rows, dtype=float)
    text.check(np.isfinite(values).all(axis=1), expected)
    received_bytes, elapsed_ms = values[:, 4], values[:, 5]
    text.check(elapsed_ms > 0, "elapsed milliseconds (column 6) above 0")
    text.check(received_bytes >= 0, "bytes (column 5) of 0 or more")
    step_s = elapsed_ms / 1e3
    t_s = np.append(0.0, np.cumsum(step_s)[:-1])
    series = checked(text, t_s, received_bytes * 8 / step_s, 0)
    return Series(series.t_s, series.bps, float(step_s[-1]))
