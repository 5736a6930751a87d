"""Powers of two with fractional exponents as integers, the same on every machine.

Sender and receiver must compute equal intervals to the last bit. Floating-point powers differ between machines in the
last bit, so these are built from integer square roots.
"""

from __future__ import annotations

import math

#: Units per bit of information.
UNIT_BITS = 16
UNIT = 1 << UNIT_BITS
#: `chance` returns multiples of 1 / TOTAL.
TOTAL_BITS = 32
TOTAL = 1 << TOTAL_BITS

_SCALE_BITS = 128


def _roots_of_half(count: int) -> list[int]:
    """2 ** -(2 ** -k) for k from 0 to count - 1, each times 2 ** _SCALE_BITS."""
    roots = [1 << (_SCALE_BITS - 1)]
    while len(roots) < count:
        roots.append(math.isqrt(roots[-1] << _SCALE_BITS))
    return roots


_ROOTS = _roots_of_half(UNIT_BITS + 1)


def powers_of(halvings: int, count: int, bits: int) -> list[int]:
    """2 ** -(k * 2 ** -halvings) for k from 0 to count - 1, each times 2 ** bits, rounded."""
    root, value, drop = _ROOTS[halvings], 1 << _SCALE_BITS, _SCALE_BITS - bits
    powers = []
    for _ in range(count):
        powers.append((value + (1 << (drop - 1))) >> drop)
        value = value * root >> _SCALE_BITS
    return powers


def chance(units: int) -> int:
    """TOTAL * 2 ** -(units / UNIT), rounded: the chance of what costs so much information. From 0 to UNIT."""
    value = 1 << _SCALE_BITS
    for halvings in range(UNIT_BITS + 1):
        if units >> (UNIT_BITS - halvings) & 1:
            value = value * _ROOTS[halvings] >> _SCALE_BITS
    drop = _SCALE_BITS - TOTAL_BITS
    return (value + (1 << (drop - 1))) >> drop
