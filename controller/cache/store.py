"""The answers that a cache keeps, within a number of bytes, a number of entries and a time to live."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from typing import Any, NamedTuple

from controller.cache.eviction import Eviction
from controller.cache.index import DIMENSIONS, MOST_KEYS, Index
from controller.records import Float32s
from controller.reuse import PastAnswer

#: Bytes of an entry beside its answer: the key in its matrix (twice while that grows), and the records that find it.
ENTRY_BYTES = 2 * 4 * DIMENSIONS + 1024


class Neighbour(NamedTuple):
    """An answer that was computed for a picture much like the one at hand."""

    entry: int
    distance: float  # between the keys
    answer: PastAnswer


@dataclass(slots=True)
class _Entry:
    answer: PastAnswer
    size_bytes: int
    born_s: float
    used: int  # when it was added or used, counted in additions and uses of all entries


class Store:
    """Owns the entries. ``capacity`` may be set at any time."""

    def __init__(self, most_bytes: int, ttl_s: float, eviction: Eviction) -> None:
        self._most_bytes, self._ttl_s, self._eviction = most_bytes, ttl_s, eviction
        self._index = Index()
        self._entries: dict[int, _Entry] = {}
        self._bytes = self._count = self._uses = 0
        self.most_entries = min(most_bytes // ENTRY_BYTES, MOST_KEYS)
        self.capacity = self.most_entries

    def __len__(self) -> int:
        return len(self._entries)

    @property
    def kept_bytes(self) -> int:
        """Upper bound of the memory of all entries."""
        return self._bytes

    def nearest(self, key: Float32s, now_s: float, count: int, within: float) -> list[Neighbour]:
        """The entry with the closest key, and up to ``count`` in all within a distance; the closest first. What has
        outlived its time is removed on the way."""
        while True:
            near = self._index.nearest(key, count, within)
            dead = [entry for entry, _ in near if now_s - self._entries[entry].born_s > self._ttl_s]
            if not dead:
                return [Neighbour(entry, distance, self._entries[entry].answer) for entry, distance in near]
            for entry in dead:
                self._remove(entry)

    def use(self, entry: int) -> int:
        """The entry answered a frame. Returns how many entries were added or used since its last use."""
        self._eviction.used(entry)
        kept = self._entries[entry]
        self._uses += 1
        since, kept.used = self._uses - kept.used, self._uses
        return since

    def add(self, key: Float32s, answer: PastAnswer, cost_s: float, now_s: float) -> None:
        """Keep an answer that took ``cost_s`` to compute, and drop others until it fits."""
        size_bytes = ENTRY_BYTES + size_of(answer.prediction)
        if size_bytes > self._most_bytes or not self.capacity:
            return
        entry = self._count = self._count + 1
        self._uses += 1
        self._entries[entry] = _Entry(answer, size_bytes, now_s, self._uses)
        self._bytes += size_bytes
        self._index.add(entry, key)
        self._eviction.added(entry, size_bytes, cost_s, key)
        while self._bytes > self._most_bytes or len(self._entries) > self.capacity:
            self._remove(self._eviction.victim())

    def drop(self, entry: int) -> None:
        """Forget an entry, if it is still there."""
        if entry in self._entries:
            self._remove(entry)

    def _remove(self, entry: int) -> None:
        self._bytes -= self._entries.pop(entry).size_bytes
        self._index.remove(entry)
        self._eviction.removed(entry)


def size_of(value: Any) -> int:
    """Bytes of a JSON-able value in memory, with everything in it."""
    own = sys.getsizeof(value)
    if isinstance(value, dict):
        return own + sum(size_of(key) + size_of(inner) for key, inner in value.items())
    if isinstance(value, list | tuple):
        return own + sum(map(size_of, value))
    return own
