"""The draws of ``numpy.random.default_rng(seed).standard_normal()``, compiled.

An episode needs two generators of its own. numpy takes 6 us to make one, which is longer than all else of a reset. So
its algorithms are written out here: SeedSequence, PCG64 (O'Neill, 2014) and the ziggurat method (Marsaglia and Tsang,
2000). A test compares the draws with numpy's, bit by bit. All arithmetic is that of unsigned numbers of 64 bits.
"""

from __future__ import annotations

import math
from importlib import import_module
from typing import Any, NamedTuple

import numpy as np

from controller.records import Floats, Ints
from envs.twin.compiled import compiled, rule

_numba = import_module("numba.np.random._constants")  # not above: ``compiled`` says it when there is no numba
_LAST, _PER_BEYOND = float(_numba.ziggurat_nor_r), float(_numba.ziggurat_nor_inv_r)
_U = np.uint64
_LOW_32, _BYTE, _MANTISSA = _U(0xFFFF_FFFF), _U(0xFF), _U(0x000F_FFFF_FFFF_FFFF)
_0, _1, _8, _9, _11, _16, _32, _58, _63, _64 = (_U(n) for n in (0, 1, 8, 9, 11, 16, 32, 58, 63, 64))
#: Multiplier of PCG64, high and low half.
_MUL_HIGH, _MUL_LOW = _U(0x2360_ED05_1FC6_5DA4), _U(0x4385_DF64_9FCC_F645)
#: Constants of SeedSequence.
_INIT_A, _MULT_A, _INIT_B, _MULT_B = _U(0x43B0_D7E5), _U(0x931E_8875), _U(0x8B51_F9DD), _U(0x58F3_8DED)
_MIX_LEFT, _MIX_RIGHT = _U(0xCA01_F9DD), _U(0x4973_F715)
_PER_DOUBLE = 1.0 / 9007199254740992.0


class Ziggurat(NamedTuple):
    """The tables of the ziggurat method (256,): where a layer is certain, its scale, its height."""

    certain: Any
    scale: Any
    height: Any


ZIGGURAT = Ziggurat(*(np.array(table) for table in (_numba.ki_double, _numba.wi_double, _numba.fi_double)))


def normals(seeds: Ints, steps: Ints, most: int) -> Floats:
    """(N, most) of which row n begins with the ``steps[n]`` first draws of ``seeds[n]``; zeros follow."""
    out = np.zeros((len(seeds), most))
    scratch = np.zeros(8, np.uint64), np.zeros(4, np.uint64)
    _draw(ZIGGURAT, np.asarray(seeds, np.uint64), np.asarray(steps, np.int64), out, *scratch)
    return out


@compiled
def _draw(t: Ziggurat, seeds: Ints, steps: Ints, out: Floats, pool: Any, state: Any) -> None:
    for n in range(len(seeds)):
        if steps[n] > 0:
            _seed(seeds[n], pool, state)
        for i in range(steps[n]):
            out[n, i] = _normal(t, state)


@rule
def _seed(seed: Any, pool: Any, state: Any) -> None:
    """Start a generator. ``state`` (4,) is its state and its increment, high and low half each; ``pool`` (8,) is
    scratch."""
    _mix_seed(seed, pool)
    factor = _INIT_B
    for i in range(8):
        word = (pool[i & 3] ^ factor) & _LOW_32
        factor = (factor * _MULT_B) & _LOW_32
        word = (word * factor) & _LOW_32
        word ^= word >> _16
        if i & 1:  # a number of 64 bits from two words, the low one first
            pool[4 + i // 2] |= word << _32
        else:
            pool[4 + i // 2] = word
    _start(state, pool[4], pool[5], pool[6], pool[7])


@rule
def _mix_seed(seed: Any, pool: Any) -> None:
    """Spread the seed over the first four words of the pool, as SeedSequence does."""
    pool[0], pool[1], pool[2], pool[3] = seed & _LOW_32, seed >> _32, _0, _0
    factor = _INIT_A
    for i in range(4):
        pool[i], factor = _hashed(pool[i], factor)
    for source in range(4):
        for i in range(4):
            if i != source:
                word, factor = _hashed(pool[source], factor)
                mixed = (_MIX_LEFT * pool[i] - _MIX_RIGHT * word) & _LOW_32
                pool[i] = mixed ^ (mixed >> _16)


@rule
def _hashed(word: Any, factor: Any) -> tuple[Any, Any]:
    """The word hashed, and the next factor."""
    word, factor = word ^ factor, (factor * _MULT_A) & _LOW_32
    word = (word * factor) & _LOW_32
    return word ^ (word >> _16), factor


@rule
def _start(state: Any, seed_high: Any, seed_low: Any, stream_high: Any, stream_low: Any) -> None:
    """Start PCG64 from its seed and its stream."""
    state[2], state[3] = (stream_high << _1) | (stream_low >> _63), (stream_low << _1) | _1
    state[0], state[1] = state[2], state[3]  # one step from zero
    low = state[1] + seed_low
    state[0], state[1] = state[0] + seed_high + (_1 if low < seed_low else _0), low
    _step(state)


@rule
def _step(state: Any) -> None:
    """The next state: times the multiplier, plus the increment, modulo 2^128."""
    high, low = _product(state[1], _MUL_LOW)
    high += state[0] * _MUL_LOW + state[1] * _MUL_HIGH
    total = low + state[3]
    state[0], state[1] = high + state[2] + (_1 if total < low else _0), total


@rule
def _product(a: Any, b: Any) -> tuple[Any, Any]:
    """High and low half of the product of two numbers."""
    a_high, a_low, b_high, b_low = a >> _32, a & _LOW_32, b >> _32, b & _LOW_32
    low = a_low * b_low
    middle = a_high * b_low + (low >> _32)
    other = a_low * b_high + (middle & _LOW_32)
    return a_high * b_high + (middle >> _32) + (other >> _32), a * b


@rule
def _next(state: Any) -> Any:
    """64 random bits."""
    _step(state)
    word, turn = state[0] ^ state[1], state[0] >> _58
    return (word >> turn) | (word << ((_64 - turn) & _63))


@rule
def _uniform(state: Any) -> float:
    """In [0, 1)."""
    return (_next(state) >> _11) * _PER_DOUBLE


@rule
def _normal(t: Ziggurat, state: Any) -> float:
    """A standard normal draw."""
    while True:
        word = _next(state)
        layer, bits = np.int64(word & _BYTE), (word >> _9) & _MANTISSA
        x = bits * t.scale[layer]
        if (word >> _8) & _1:
            x = -x
        if bits < t.certain[layer]:
            return x
        if layer == 0:
            beyond = _tail(state)
            return -beyond if (bits >> _8) & _1 else beyond
        if (t.height[layer - 1] - t.height[layer]) * _uniform(state) + t.height[layer] < math.exp(-0.5 * x * x):
            return x


@rule
def _tail(state: Any) -> float:
    """A draw beyond the last layer."""
    while True:
        x = -_PER_BEYOND * math.log1p(-_uniform(state))
        y = -math.log1p(-_uniform(state))
        if y + y > x * x:
            return _LAST + x
