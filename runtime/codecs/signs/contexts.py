"""What is known about a place before its level is decoded, as numbers that index tables.

A **memory** is what a request leaves behind at sender and receiver: for each place its level, and how many payloads
ago it changed. It tells places that flicker from places at rest. The first half of the checkerboard is predicted from
the memory: level, neighbours, time since the change, and how much changed around this cell in all channels. The second
half is also predicted from the four neighbours just decoded, and from what changed around this cell in the first half
of all channels.

An **index** holds all of that but the last in one number: memory + 64 * near. Near is the number of neighbours at level
1 in the memory, plus 5 times that of decoded neighbours at level 1, plus 25 times that of decoded neighbours that
changed; in the first half it is the first number plus 125. `CONTEXT_OF` groups indices to contexts, for which tables
are fitted. Diagonal neighbours were tried: tables of five times the size saved nothing.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from runtime.codecs.signs.grid import Bytes, Grid, Words

MOST_STEPS = 31  # since a change; counted no further
ACTIVITIES = 8
_STEPS_FINE = (1, 2, 3, 5, 9, 17, 31)  # lower limits of groups 1 to 7
_STEPS_COARSE = (1, 4, 16)
_MOVED = (1, 2, 3, 5, 8, 12, 18)
_NEAR = 2 * 5  # level, sum of neighbours
FIRST_CONTEXTS = _NEAR * (len(_STEPS_FINE) + 1)
SECOND_CONTEXTS = _NEAR * 5 * 5 * (len(_STEPS_COARSE) + 1)

Indices = NDArray[np.uint16]

# Numbers of the arrays' own type: converting Python's takes longer than the operation.
_CHANGED = np.uint8(2)  # values of a memory that are smaller changed in the last payload

_MEMORY_BITS = np.uint16(6)
_FIRST_NEAR = np.uint8(125)
FIRST_INDEX = int(_FIRST_NEAR) << 6
INDICES = FIRST_INDEX + (5 << 6)
#: By the changes around a cell: its activity, in each of four bytes. Larger sums are in the last group.
_GROUPS_OF_CELLS = (np.searchsorted(_MOVED, np.arange(max(_MOVED) + 1), "right") * 0x01010101).astype(np.uint32)


def _context_of() -> Indices:
    index = np.arange(INDICES)
    steps, cross, decoded = index % 64 // 2, index // 64 % 5, index // (5 * 64)
    near = index % 2 + 2 * cross
    first = near + _NEAR * np.searchsorted(_STEPS_FINE, steps, "right")
    second = near + _NEAR * decoded + _NEAR * 25 * np.searchsorted(_STEPS_COARSE, steps, "right")
    return np.where(index < FIRST_INDEX, second, first).astype(np.uint16)


#: Context of each index; contexts of both halves are counted from 0. Indices from `FIRST_INDEX` on are of the first.
CONTEXT_OF = _context_of()


@dataclass(frozen=True, slots=True)
class Memory:
    """Of both halves, with margins: level + 2 * payloads since the last change.

    The digest, 32 bits, is the CRC-32 of all payloads that led to it, since the last one that stood alone.
    """

    values: Bytes
    digest: int


def at_rest(levels: Bytes, digest: int) -> Memory:
    """A memory of halves of levels that have not changed for long."""
    return Memory(levels | np.uint8(2 * MOST_STEPS), digest)


class Contexts:
    """Indices and activities of one payload, given the memory that it refers to."""

    def __init__(self, grid: Grid, memory: Memory) -> None:
        self._grid, self._values = grid, memory.values
        self.levels = memory.values & np.uint8(1)

    def near(self) -> Bytes:
        """Near (2, places) by the memory alone: complete for the first half."""
        near = self._grid.cross(self.levels)[::-1]
        near[0] += _FIRST_NEAR
        return near

    def decoded(self, first: Bytes, changed: Bytes) -> Bytes:
        """What the first half (levels, and where they changed; with margins) adds to near (places,) of the second."""
        each = changed * np.uint8(25)
        each += first * np.uint8(5)
        return self._grid.cross(each)

    def indices(self, near: Bytes, half: int | slice = slice(None)) -> Indices:
        """Indices (..., places) of one half, or of both."""
        index: Indices = near.astype(np.uint16)
        index <<= _MEMORY_BITS
        index += self._grid.inside(self._values[half])
        return index

    def moved(self) -> Words:
        """Four places each: how many places of both halves changed in the last payload, one byte each."""
        moved = (self._grid.inside(self._values) < _CHANGED).view(np.uint32)
        total: Words = moved[0] + moved[1]
        return total

    def activity(self, changed: Words) -> Bytes:
        """Activity (..., places) of each place, for bytes (..., places) that count changes, four in each number."""
        near = self._grid.around_cells(self._grid.cell_sums(changed))
        return self._grid.spread(_GROUPS_OF_CELLS.take(near, mode="clip"))

    def activity_of_both(self, first_changed: Bytes) -> Bytes:
        """Activity (2, places) of both halves, when it is known where the first half (with margins) changed."""
        changed = self._grid.inside(first_changed).view(np.uint32)
        both = np.empty((2, len(changed)), np.uint32)
        both[0], both[1] = self.moved(), changed
        return self.activity(both)

    def after(self, levels: Bytes, changed: Bytes) -> Bytes:
        """The values of the memory after these levels, and where they changed: both halves, with margins."""
        values = np.minimum(self._values, np.uint8(2 * MOST_STEPS - 1))
        values += np.uint8(2)
        keep = changed + changed
        keep += np.uint8(0xFE)  # all bits but the level where it is the same, none elsewhere
        values &= keep
        values |= levels
        return values
