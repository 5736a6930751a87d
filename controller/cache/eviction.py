"""Which entry goes when room is needed: three policies behind one interface, all of constant or logarithmic time."""

from __future__ import annotations

import heapq
from collections import OrderedDict
from collections.abc import Callable
from typing import Protocol

import numpy as np

from controller.records import Float32s


class Eviction(Protocol):
    """Owns the order in which entries go. Entries are numbers that are never used twice."""

    def added(self, entry: int, size_bytes: int, cost_s: float, key: Float32s | None = None) -> None:
        """A new entry. ``cost_s``: what it took to compute; ``key``: of its picture, if it has one."""
        ...

    def used(self, entry: int) -> None:
        """The entry answered a request."""
        ...

    def removed(self, entry: int) -> None:
        """The entry is gone, for whatever reason."""
        ...

    def victim(self) -> int:
        """The entry that goes next, which may be the newest. There must be one."""
        ...


class Lru:
    """The entry that was used longest ago goes."""

    def __init__(self) -> None:
        self._order: OrderedDict[int, None] = OrderedDict()

    def added(self, entry: int, size_bytes: int, cost_s: float, key: Float32s | None = None) -> None:
        self._order[entry] = None

    def used(self, entry: int) -> None:
        self._order.move_to_end(entry)

    def removed(self, entry: int) -> None:
        del self._order[entry]

    def victim(self) -> int:
        return next(iter(self._order))


class Gdsf:
    """The entry of the least worth goes: inflation + uses * cost / size (Cherkasova, "Improving WWW proxies performance
    with Greedy-Dual-Size-Frequency caching policy", 1998). The inflation is the worth of the last one that went, so
    that what is not used any more goes in the end."""

    def __init__(self) -> None:
        self._inflation = 0.0
        self._worth: dict[int, float] = {}
        self._uses: dict[int, int] = {}
        self._gain: dict[int, float] = {}  # cost / size
        self._heap: list[tuple[float, int]] = []  # may hold worths that no longer hold

    def added(self, entry: int, size_bytes: int, cost_s: float, key: Float32s | None = None) -> None:
        self._uses[entry], self._gain[entry] = 0, cost_s / max(size_bytes, 1)
        self.used(entry)

    def used(self, entry: int) -> None:
        self._uses[entry] += 1
        self._worth[entry] = self._inflation + self._uses[entry] * self._gain[entry]
        heapq.heappush(self._heap, (self._worth[entry], entry))
        if len(self._heap) > 64 + 4 * len(self._worth):
            self._heap = [(worth, kept) for kept, worth in self._worth.items()]
            heapq.heapify(self._heap)

    def removed(self, entry: int) -> None:
        del self._worth[entry], self._uses[entry], self._gain[entry]

    def victim(self) -> int:
        while self._worth.get((first := self._heap[0])[1]) != first[0]:
            heapq.heappop(self._heap)
        self._inflation = first[0]
        return first[1]


class TinyLfu:
    """A new entry has to be asked for more often than the one that it would drive out (Einziger, Friedman and Manes,
    "TinyLFU: a highly efficient cache admission policy", 2017). Entries start in a small window; what is used once more
    outside of it is protected."""

    _WINDOW_FRAC = 0.01
    _PROTECTED_FRAC = 0.8

    def __init__(self) -> None:
        self._window: OrderedDict[int, None] = OrderedDict()
        self._probation: OrderedDict[int, None] = OrderedDict()
        self._protected: OrderedDict[int, None] = OrderedDict()
        self._marks: dict[int, int] = {}
        self._asked = Frequencies()

    def added(self, entry: int, size_bytes: int, cost_s: float, key: Float32s | None = None) -> None:
        mark = self._marks[entry] = 0 if key is None else mark_of(key)
        self._window[entry] = None
        self._asked.add(mark)

    def used(self, entry: int) -> None:
        self._asked.add(self._marks[entry])
        if entry in self._probation:
            del self._probation[entry]
            self._protected[entry] = None
            if len(self._protected) > self._PROTECTED_FRAC * len(self._marks):
                self._probation[self._protected.popitem(last=False)[0]] = None
        else:
            (self._window if entry in self._window else self._protected).move_to_end(entry)

    def removed(self, entry: int) -> None:
        del self._marks[entry]
        for part in (self._window, self._probation, self._protected):
            part.pop(entry, None)

    def victim(self) -> int:
        candidate = None
        while len(self._window) > max(self._WINDOW_FRAC * len(self._marks), 1):
            candidate = self._window.popitem(last=False)[0]
            self._probation[candidate] = None
        oldest = next(iter(self._probation or self._protected or self._window))
        if candidate is None or candidate == oldest:
            return oldest
        asked, asked_oldest = (self._asked.of(self._marks[entry]) for entry in (candidate, oldest))
        return oldest if asked > asked_oldest else candidate


# Multiply-shift hashing (Dietzfelbinger et al., 1997) by odd factors, to 12 bits.
_FACTORS = 0x9E3779B97F4A7C15, 0xC2B2AE3D27D4EB4F, 0x165667B19E3779F9, 0xD6E8FEB86659FD93
_64_BITS, _SHIFT = (1 << 64) - 1, 52


class Frequencies:
    """How often marks were seen lately, in a fixed number of bytes: a count-min sketch (Cormode and Muthukrishnan,
    2005) whose counts are halved now and then. It never counts too few, and rarely too many."""

    _COLUMNS, _MOST = 4096, 255

    def __init__(self) -> None:
        self._counts = np.zeros((len(_FACTORS), self._COLUMNS), np.uint8)
        self._seen = 0

    def add(self, mark: int) -> None:
        for row, column in enumerate(self._places(mark)):
            self._counts[row, column] += self._counts[row, column] < self._MOST
        self._seen += 1
        if self._seen == 10 * self._COLUMNS:
            self._seen //= 2
            self._counts >>= 1

    def of(self, mark: int) -> int:
        return min(int(self._counts[row, column]) for row, column in enumerate(self._places(mark)))

    def _places(self, mark: int) -> list[int]:
        return [(mark * factor & _64_BITS) >> _SHIFT for factor in _FACTORS]


def mark_of(key: Float32s) -> int:
    """A number that keys of the same picture mostly share: which four of its frequencies are the strongest."""
    return hash(tuple(np.sort(np.argpartition(key, -4)[-4:]).tolist()))


#: By the name that the configuration uses.
EVICTIONS: dict[str, Callable[[], Eviction]] = {"gdsf": Gdsf, "lru": Lru, "w-tinylfu": TinyLfu}
