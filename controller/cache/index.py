"""Nearest neighbours of a key, by comparing it with every key that is kept.

Up to 10,000 keys this takes less time than the bookkeeping of a search tree or a hash table.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from controller.records import Float32s

#: Length of a key.
DIMENSIONS = 64
MOST_KEYS = 10_000
_FIRST_ROWS = 256


class Near(NamedTuple):
    """A kept key that is close to the one that was looked for."""

    entry: int
    distance: float  # between two keys of length 1: 0 for equal ones, at most 2


class Index:
    """Owns the keys, in the first rows of a matrix without gaps."""

    def __init__(self) -> None:
        self._keys = np.zeros((_FIRST_ROWS, DIMENSIONS), np.float32)
        self._entries: list[int] = []  # by row
        self._row: dict[int, int] = {}  # by entry

    def __len__(self) -> int:
        return len(self._entries)

    def add(self, entry: int, key: Float32s) -> None:
        """Keep a key (64,) of length 1."""
        row = len(self._entries)
        if row == len(self._keys):
            self._keys = np.concatenate((self._keys, np.zeros_like(self._keys)))
        self._keys[row] = key
        self._entries.append(entry)
        self._row[entry] = row

    def remove(self, entry: int) -> None:
        """Forget a key: the last row takes its place."""
        row, last = self._row.pop(entry), self._entries.pop()
        if last != entry:
            self._keys[row] = self._keys[len(self._entries)]
            self._entries[row] = last
            self._row[last] = row

    def nearest(self, key: Float32s, count: int, within: float) -> list[Near]:
        """The closest key, and up to ``count`` in all that are no farther than ``within``; the closest first."""
        if not self._entries:
            return []
        cosine = self._keys[: len(self._entries)] @ key
        least = 1.0 - 0.5 * within**2
        closest = int(cosine.argmax())
        if cosine[closest] < least:
            return [self._near(closest, cosine)]
        rows = np.flatnonzero(cosine >= least)
        if len(rows) > count:
            rows = rows[np.argpartition(cosine[rows], -count)[-count:]]
        return [self._near(row, cosine) for row in rows[np.argsort(-cosine[rows])].tolist()]

    def _near(self, row: int, cosine: Float32s) -> Near:
        return Near(self._entries[row], math.sqrt(max(2.0 - 2.0 * float(cosine[row]), 0.0)))
