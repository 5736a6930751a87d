"""What is known about a place before its level is decoded, as numbers that index tables.

A place is one channel of one cell of the map. The places form two halves, as the colours of a checkerboard: where row +
column of the cell is even, channels 0 to 3 of each group of eight are in the first half; where it is odd, channels 4 to
7. So the four neighbours of a place lie in the other half, and half of the channels of each cell are in the first half.

A **memory** is what a request leaves behind at sender and receiver: for each place its level, and how many payloads
ago it changed. It tells places that flicker from places at rest. The first half is predicted from the memory: level,
neighbours, time since the change, and how much changed around this cell in all channels. The second half is also
predicted from the four neighbours just decoded, and from what changed around this cell in the first half of all
channels.

An **index** holds all of that but the last in one number: memory + 64 * near. Near is the number of neighbours at level
1 in the memory, plus 5 times that of decoded neighbours at level 1, plus 25 times that of decoded neighbours that
changed; in the first half it is the first number plus 125. `CONTEXT_OF` groups indices to contexts, for which tables
are fitted. Diagonal neighbours were tried: tables of five times the size saved nothing.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Bytes = NDArray[np.uint8]
Values = NDArray[np.uint8]  # of a memory (h + 2, w + 2, channels), with a margin of one cell

MOST_STEPS = 31  # since a change; counted no further
ACTIVITIES = 8
_STEPS_FINE = (1, 2, 3, 5, 9, 17, 31)  # lower limits of groups 1 to 7
_STEPS_COARSE = (1, 4, 16)
_MOVED = (1, 2, 3, 5, 8, 12, 18)
_NEAR = 2 * 5  # level, sum of neighbours
FIRST_CONTEXTS = _NEAR * (len(_STEPS_FINE) + 1)
SECOND_CONTEXTS = _NEAR * 5 * 5 * (len(_STEPS_COARSE) + 1)

MEMORY_BITS = 6
FIRST_NEAR = 125
FIRST_INDEX = FIRST_NEAR << MEMORY_BITS
INDICES = FIRST_INDEX + (5 << MEMORY_BITS)

#: By the changes around a cell, at most `MOST_MOVED`: its activity.
ACTIVITY_OF = np.searchsorted(_MOVED, np.arange(max(_MOVED) + 1), "right").astype(np.uint8)
MOST_MOVED = max(_MOVED)


def _context_of() -> NDArray[np.uint16]:
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
    """Of each place: level + 2 * payloads since the last change.

    The digest, 32 bits, is the CRC-32 of the tables and of all payloads since the last one that stood alone.
    """

    values: Values
    digest: int

    @property
    def levels(self) -> NDArray[np.bool_]:
        """Levels (channels, h, w)."""
        return (self.values[1:-1, 1:-1].transpose(2, 0, 1) & np.uint8(1)).view(np.bool_)


def at_rest(levels: NDArray[np.bool_], digest: int) -> Memory:
    """A memory of levels (channels, h, w) that have not changed for long."""
    channels, h, w = levels.shape
    values = np.full((h + 2, w + 2, channels), 2 * MOST_STEPS, np.uint8)
    values[1:-1, 1:-1] += levels.transpose(1, 2, 0)
    return Memory(values, digest)
