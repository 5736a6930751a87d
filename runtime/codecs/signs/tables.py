"""The fitted tables of a shape: from contexts to the prediction of each level, in two look-ups.

The first look-up (`near1`, `near2`; one table for all channels) takes the context of a place to one of 64 **ranks** of
how probable level 1 is. The second (`level1`, `level2`; one table per channel) takes rank and activity of the cell to a
prediction in one byte: the more probable level, and the cost of being right. 1 and 2 are the halves of the
checkerboard. Each table exists once for payloads that stand alone and once for each of `AGES`. A payload that stands
alone refers to `background`, the most frequent level of each place in the training frames.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Mapping
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from controller.errors import UsageError
from runtime.codecs.signs.contexts import (
    ACTIVITIES,
    CONTEXT_OF,
    FIRST_CONTEXTS,
    FIRST_INDEX,
    SECOND_CONTEXTS,
    Memory,
    at_rest,
)
from runtime.codecs.signs.passes import Predictions
from runtime.codecs.signs.powers import UNIT_BITS, chance, powers_of

Shape: TypeAlias = tuple[int, int, int]
#: A reference of another age uses the tables of the next smaller one.
AGES = (1, 2, 3, 5, 8)
RANKS = 64
CLASSES = 128
#: In the byte of a prediction: set if level 1 is the more probable one. The other bits are the class of its cost.
ONE = 128

#: By class: the chance of being right, in 1 / `powers.TOTAL`. It costs 2 ** -(class / 8) bits.
CHANCE = np.array([chance(units) for units in powers_of(3, CLASSES, UNIT_BITS)], np.int64)


def prefix(shape: tuple[int, ...]) -> str:
    """Starts the names of all tables of a shape, so that one mapping may hold several shapes."""
    return "x".join(map(str, shape)) + "/"


def table_shapes(shape: tuple[int, ...]) -> dict[str, tuple[int, ...]]:
    """Shapes of all tables of tensors (channels, h, w), u8 each."""
    many = len(AGES) + 1
    return {
        "background": ((math.prod(shape) + 7) // 8,),
        "near1": (many, FIRST_CONTEXTS),
        "near2": (many, SECOND_CONTEXTS),
        "level1": (many, shape[0], ACTIVITIES * RANKS),
        "level2": (many, shape[0], ACTIVITIES * RANKS),
    }


def table_of(age: int) -> int:
    """Index of the tables for a reference of this age in frames; 0: a payload that stands alone."""
    return sum(age >= limit for limit in AGES)


class Model:
    """The tables of one shape, ready for look-ups. UsageError when a table has another type, shape or content."""

    def __init__(self, shape: Shape, tables: Mapping[str, NDArray[Any]]) -> None:
        self._tables = {
            name: _checked(tables, prefix(shape) + name, size) for name, size in table_shapes(shape).items()
        }
        if max(self._tables["near1"].max(), self._tables["near2"].max()) >= RANKS:
            raise UsageError(f"tables of signs with ranks up to 255; expected below {RANKS}; fit them anew")
        digest = zlib.crc32(b"".join(table.tobytes() for table in self._tables.values()))
        levels = np.unpackbits(self._tables["background"], count=math.prod(shape)).reshape(shape)
        self.background: Memory = at_rest(levels.view(np.bool_), digest)
        self._ready: dict[int, Predictions] = {}

    def predictions(self, age: int) -> Predictions:
        """Of payloads whose reference has this age in frames; 0: that stand alone."""
        table = table_of(age)
        if table not in self._ready:
            near1, near2 = (self._tables[name][table] for name in ("near1", "near2"))
            ranks = np.concatenate((near2.take(CONTEXT_OF[:FIRST_INDEX]), near1.take(CONTEXT_OF[FIRST_INDEX:])))
            levels = np.stack([self._tables[name][table] for name in ("level1", "level2")])
            by_rank = levels.reshape(*levels.shape[:2], ACTIVITIES, RANKS).swapaxes(2, 3).reshape(levels.shape)
            self._ready[table] = Predictions(ranks * np.uint16(ACTIVITIES), np.ascontiguousarray(by_rank), CHANCE)
        return self._ready[table]


def _checked(tables: Mapping[str, NDArray[Any]], name: str, shape: tuple[int, ...]) -> NDArray[np.uint8]:
    if name not in tables:
        raise UsageError(f"tables of signs without {name!r}; fit them anew")
    table = tables[name]
    if table.dtype != np.uint8 or table.shape != shape:
        raise UsageError(f"table {name!r} of signs is {table.dtype} {table.shape}; expected uint8 {shape}; fit it anew")
    return table


def has_tables(shape: tuple[int, ...], tables: Mapping[str, NDArray[Any]]) -> bool:
    """Whether the mapping holds tables for this shape."""
    return any(name.startswith(prefix(shape)) for name in tables)
