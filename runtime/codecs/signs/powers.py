"""Integer tables of powers of two with fractional exponents, the same on every machine.

Sender and receiver must compute equal intervals to the last bit. Floating-point powers differ between machines in the
last bit, so the tables are built from integer square roots.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

#: Units per bit of information.
UNIT_BITS = 16
UNIT = 1 << UNIT_BITS
#: `survivals` returns multiples of 1 / TOTAL.
TOTAL_BITS = 32
TOTAL = 1 << TOTAL_BITS
#: The largest argument of `survivals`, in bits.
MOST_BITS = 10

_SCALE_BITS = 128
_ENTRY_BITS = 31


def _root_of_half(halvings: int) -> int:
    """2 ** -(2 ** -halvings), times 2 ** _SCALE_BITS."""
    value = 1 << (_SCALE_BITS - 1)
    for _ in range(halvings):
        value = math.isqrt(value << _SCALE_BITS)
    return value


def powers_of(halvings: int, count: int, bits: int) -> list[int]:
    """2 ** -(k * 2 ** -halvings) for k from 0 to count - 1, each times 2 ** bits, rounded."""
    root, value, drop = _root_of_half(halvings), 1 << _SCALE_BITS, _SCALE_BITS - bits
    powers = []
    for _ in range(count):
        powers.append((value + (1 << (drop - 1))) >> drop)
        value = value * root >> _SCALE_BITS
    return powers


#: The two factors of `survivals`: 2 ** -(k / 256) and 2 ** -(k / 256 / 256). Their product is shifted right.
FINE_BITS = UNIT_BITS // 2
FINE_MASK = (1 << FINE_BITS) - 1
DROPPED_BITS = 2 * _ENTRY_BITS - TOTAL_BITS
COARSE = powers_of(FINE_BITS, MOST_BITS << FINE_BITS, _ENTRY_BITS)
FINE = powers_of(UNIT_BITS, 1 << FINE_BITS, _ENTRY_BITS)
_COARSE = np.array(COARSE)
_FINE = np.array(FINE)


def survivals(units: NDArray[np.integer[Any]]) -> NDArray[np.int64]:
    """TOTAL * 2 ** -(units / UNIT), strictly decreasing; each from 0 to MOST_BITS * UNIT - 1."""
    product: NDArray[np.int64] = _COARSE.take(units >> FINE_BITS)
    product *= _FINE.take(units & FINE_MASK)
    product >>= DROPPED_BITS
    return product


def survival(units: int) -> int:
    """The same of one number."""
    return COARSE[units >> FINE_BITS] * FINE[units & FINE_MASK] >> DROPPED_BITS
