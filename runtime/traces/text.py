"""What every trace format shares: the lines of a file, the series read from them, and the checks of both."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from controller.errors import UsageError
from controller.records import Floats
from runtime.files.masking import shown

#: Duration of a trace of one value, which no later time ends.
SINGLE_VALUE_S = 1.0
#: Limits on what a file states, because memory grows with it.
LONGEST_S = 31 * 86_400.0
MOST_BPS = 1e12
SI_PREFIX = {"": 1.0, "k": 1e3, "m": 1e6, "g": 1e9}


class NoTrace(UsageError):
    """The file has none of the known trace formats."""


@dataclass(frozen=True)
class Text:
    """The lines of a file that are neither empty nor comments."""

    name: str  # of the file, for messages
    numbers: Sequence[int]  # of each line in the file, from 1
    lines: Sequence[str]

    def malformed(self, index: int, expected: str) -> UsageError:
        """An error that names the file, the line and its content."""
        return UsageError(f"{self.name}:{self.numbers[index]}: got {short(self.lines[index])!r}; expected {expected}")

    def check(self, good: ArrayLike, expected: str, first: int = 0) -> None:
        """UsageError that names the first line whose value in ``good``, bool (n,), is false.

        ``first`` is the index of the line of ``good[0]``.
        """
        if not np.all(good):
            raise self.malformed(first + int(np.argmin(good)), expected)


@dataclass(frozen=True)
class Series:
    """Bandwidth over time: ``bps[i]`` holds from ``t_s[i]`` to the next time, the last value for ``last_step_s``."""

    t_s: Floats  # (n,) from 0, strictly ascending
    bps: Floats  # (n,) bit/s
    last_step_s: float
    downlink: bool = False  # the file has only a downlink


def checked(text: Text, t_s: Floats, bps: Floats, first: int, downlink: bool = False, merge: bool = False) -> Series:
    """The series after checks of its values and times, each (n,); UsageError names the first bad line.

    ``first`` is the index of the line of the first value. With ``merge``, values with equal times (from clocks that
    show whole seconds) are averaged.
    """
    text.check(bps >= 0, "a bandwidth of 0 or more", first)
    text.check(bps <= MOST_BPS, f"a bandwidth of at most {MOST_BPS / 1e6:g} Mbit/s", first)
    step_s = np.diff(t_s)
    text.check(np.append(True, step_s >= 0 if merge else step_s > 0), "a time above the one before", first)
    text.check(len(t_s) == 1 or t_s[-1] > 0, "times that ascend", len(text.lines) - 1)
    text.check(t_s <= LONGEST_S, f"times within {LONGEST_S / 86_400:.0f} days", first)
    if merge:
        t_s, group, count = np.unique(t_s, return_inverse=True, return_counts=True)
        bps = np.bincount(group, bps) / count
    last_step_s = t_s[-1] - t_s[-2] if len(t_s) > 1 else SINGLE_VALUE_S
    return Series(t_s, bps, float(last_step_s), downlink)


def short(line: str) -> str:
    """A line for an error message: printable, at most 60 characters."""
    return shown(line) if len(line) <= 60 else f"{shown(line[:57])}..."


def number(field: str) -> float | None:
    """The number in a field; None when it is not one."""
    try:
        return None if "_" in field else float(field)
    except ValueError:
        return None


def decimal(field: str, commas: bool) -> float | None:
    """The number in a field; with ``commas`` a comma is the decimal point."""
    return number(field.replace(",", ".", 1) if commas else field)


def finite_numbers(text: Text, fields: Iterable[str], commas: bool, first: int) -> Floats:
    """(n,) numbers of one column, from line ``first`` on; UsageError when one is not a finite number."""
    values = [decimal(field, commas) for field in fields]
    text.check([value is not None and math.isfinite(value) for value in values], "finite numbers", first)
    return np.array(values, dtype=float)
