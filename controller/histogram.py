"""Percentiles of an endless series in bounded memory: a histogram whose bins grow by 1 %.

A value counts as the middle of its bin, so a percentile is at most 0.5 % off for values from LEAST to MOST. Values
outside count as LEAST or MOST.
"""

from __future__ import annotations

import math

import numpy as np

from controller.records import Floats

LEAST, MOST = 1e-6, 1e5  # one microsecond to a day, where values are seconds
GROWTH = 1.01
_LOG_GROWTH = math.log(GROWTH)
_BINS = math.ceil(math.log(MOST / LEAST) / _LOG_GROWTH) + 1


class LogHistogram:
    """Counts of values per bin; grows with neither time nor number of values."""

    def __init__(self) -> None:
        self._counts = np.zeros(_BINS, np.int64)

    def add(self, values: Floats) -> None:
        """Count the values (N,)."""
        inside = np.clip(values, LEAST, MOST)
        bins = np.floor(np.log(inside / LEAST) / _LOG_GROWTH).astype(np.int64)
        np.add.at(self._counts, np.minimum(bins, _BINS - 1), 1)

    def percentile(self, percent: float) -> float | None:
        """The percentile (``percent`` 0 to 100), interpolated as numpy does; None without values."""
        count = int(self._counts.sum())
        if not count:
            return None
        rank = percent / 100.0 * (count - 1)
        below, above = self._value(math.floor(rank)), self._value(math.ceil(rank))
        return below + (above - below) * (rank - math.floor(rank))

    def _value(self, rank: int) -> float:
        """Middle of the bin that holds the value with this rank; the least value has rank 0."""
        number = int(np.searchsorted(np.cumsum(self._counts), rank, side="right"))
        return float(LEAST * GROWTH ** (number + 0.5))
