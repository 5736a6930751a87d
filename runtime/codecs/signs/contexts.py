"""What is known about a place before its level is decoded, as numbers that index tables.

A **memory** is what a request leaves behind at sender and receiver: for each place its level, and how many payloads
ago it changed. It tells places that flicker from places at rest. The first half of the checkerboard is predicted from
the memory: level, neighbours and diagonal neighbours, time since the change, and how much changed around this cell in
all channels. The second half is also predicted from the four neighbours just decoded, and from what changed around this
cell in the first half of all channels.
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from runtime.codecs.signs.grid import Grid, Half

MOST_STEPS = 31  # since a change; counted no further
ACTIVITIES = 8
_STEPS_FINE = (1, 2, 3, 5, 9, 17, 31)  # lower limits of groups 1 to 7
_STEPS_COARSE = (1, 4, 16)
_MOVED = (1, 2, 3, 5, 8, 12, 18)
_AROUND = 2 * 5 * 5  # level, sum of neighbours, sum of diagonal neighbours
FIRST_CONTEXTS = _AROUND * (len(_STEPS_FINE) + 1)
SECOND_CONTEXTS = _AROUND * 5 * 5 * (len(_STEPS_COARSE) + 1)

Indices = NDArray[np.uint16]


def _groups(limits: tuple[int, ...], count: int, unit: int) -> Indices:
    return (np.searchsorted(limits, np.arange(count), "right") * unit).astype(np.uint16)


_MEMORY_VALUES = 2 * (MOST_STEPS + 1)
_FINE_OF = _groups(_STEPS_FINE, MOST_STEPS + 1, _AROUND).repeat(2)
_COARSE_OF = _groups(_STEPS_COARSE, MOST_STEPS + 1, _AROUND * 25).repeat(2)
_ACTIVITY_OF = _groups(_MOVED, max(_MOVED) + 1, 1)


@dataclass(frozen=True)
class Memory:
    """Both halves, with margins: level + 2 * payloads since the last change."""

    first: Half
    second: Half

    @property
    def digest(self) -> int:
        """32 bits; equal memories have equal digests."""
        return zlib.crc32(self.second.data, zlib.crc32(self.first.data))


def at_rest(grid: Grid, levels: NDArray[np.bool_]) -> Memory:
    """A memory of levels (channels, h, w) that have not changed for long."""
    return Memory(*(half | np.uint8(2 * MOST_STEPS) for half in grid.halves(levels)))


def remember(memory: Memory, first: Half, second: Half) -> Memory:
    """The memory after these levels were coded with reference to ``memory``."""
    return Memory(_older(memory.first, first), _older(memory.second, second))


def _older(before: Half, levels: Half) -> Half:
    older: Half = np.minimum(before + np.uint8(2), np.uint8(2 * MOST_STEPS + 1))
    older &= ((before ^ levels) & np.uint8(1)) - np.uint8(1)  # all bits where the level is the same, none elsewhere
    older &= np.uint8(0xFE)
    older |= levels
    return older


class Contexts:
    """Contexts of one payload, given the memory that it refers to."""

    def __init__(self, grid: Grid, memory: Memory) -> None:
        self._grid, self.memory = grid, memory
        self.first, self.second = memory.first & np.uint8(1), memory.second & np.uint8(1)

    def of_first(self) -> tuple[Indices, Indices]:
        """Contexts (places,) of the first half, and activities (plane,) of its cells."""
        grid, memory = self._grid, self.memory
        around = self._around(self.first, self.second, second=False)
        contexts = _FINE_OF.take(grid.inside(memory.first)) + around
        moved = [(grid.inside(half) < 2).view(np.uint8) for half in (memory.first, memory.second)]
        return contexts, self._activity(grid.cells(*moved), second=False)

    def of_second(self, first: Half) -> tuple[Indices, Indices]:
        """The same of the second half, after the levels of the first half are decoded."""
        grid, changed = self._grid, self.first ^ first
        contexts = _COARSE_OF.take(grid.inside(self.memory.second))
        contexts += self._around(self.second, self.first, second=True)
        contexts += np.uint16(50) * grid.cross(first, second=True)
        contexts += np.uint16(250) * grid.cross(changed, second=True)
        return contexts, self._activity(grid.cells(grid.inside(changed), None), second=True)

    def _around(self, same: Half, other: Half, second: bool) -> NDArray[np.uint8]:
        grid = self._grid
        around = grid.diagonal(same)
        around *= np.uint8(5)
        around += grid.cross(other, second)
        around *= np.uint8(2)
        around += grid.inside(same)
        return around

    def _activity(self, cells: NDArray[np.uint16], second: bool) -> Indices:
        moved = np.minimum(self._grid.around(cells), np.uint16(max(_MOVED)))
        return self._grid.spread(_ACTIVITY_OF.take(moved), second)
