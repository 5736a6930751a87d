"""A range coder for binary places: each has the chance that it is as predicted, and is or is not.

Range coding: G. N. N. Martin, "Range encoding" (1979). The coder narrows an interval of integers place by place; when
it is small enough that its first byte is settled, that byte is sent and the rest is scaled up. All numbers are below
2 ** 57, so Python's integers and compiled ones of 64 bits do the same. Plain functions on numbers and arrays of bytes:
``runtime.codecs.signs.compiled`` compiles them with the passes that call them.

Why not a library: constriction 0.5 has no wheels for Linux on ARM and no source package, so the dependency would keep
the project off the very devices it is for; and a call for each place costs more than the coding.
"""

from __future__ import annotations

from runtime.codecs.signs.contexts import Bytes
from runtime.codecs.signs.powers import TOTAL_BITS

#: Bytes of the interval.
WINDOW_BYTES = 7
START_RANGE = 1 << (8 * WINDOW_BYTES)
_REST = START_RANGE - 1
_LAST_BYTE_BITS = 8 * (WINDOW_BYTES - 1)
#: 16 bits above TOTAL, so that rounding costs nothing worth mentioning.
_LEAST_RANGE = 1 << 48
#: Instead of a number of bytes: the payload is longer than what it is written to.
TOO_LONG = -1


def encoded_place(low: int, size: int, length: int, out: Bytes, chance: int, wrong: bool) -> tuple[int, int, int]:
    """Narrow the interval from ``low`` of ``size`` by a place with this ``chance`` of not being wrong.

    Settled bytes are written to ``out`` behind the first ``length``. Returns the new three.
    """
    right = (size >> TOTAL_BITS) * chance
    if wrong:
        low, size = low + right, size - right
        if low > _REST:
            low &= _REST
            _carry(out, length)
    else:
        size = right
    while size < _LEAST_RANGE:
        out[length] = low >> _LAST_BYTE_BITS
        low, size, length = (low << 8) & _REST, size << 8, length + 1
    return low, size, length


def finished(low: int, size: int, length: int, out: Bytes) -> int:
    """Write the shortest bytes that state a number in the interval; returns the length of all bytes.

    The decoder appends zeros, so those at the end are left out; at most as many as the interval has.
    """
    step = 1
    while 2 * step < size:
        step <<= 1
    number = -(-low // step) * step
    if number > _REST:
        number &= _REST
        _carry(out, length)
    for place in range(WINDOW_BYTES):
        out[length + place] = (number >> (_LAST_BYTE_BITS - 8 * place)) & 255
    end = length + WINDOW_BYTES
    while end > length and out[end - 1] == 0:
        end -= 1
    return end


def _carry(out: Bytes, length: int) -> None:
    """Add 1 to the number that the bytes state. Numbers are below 1, so there is a byte that takes it."""
    place = length - 1
    while out[place] == 255:
        out[place] = 0
        place -= 1
    out[place] += 1


def first_window(data: Bytes) -> int:
    """The number that a decoder begins with."""
    code = 0
    for place in range(WINDOW_BYTES):
        code = (code << 8) + (int(data[place]) if place < len(data) else 0)
    return code


def decoded_place(code: int, size: int, read: int, data: Bytes, chance: int) -> tuple[int, int, int, int]:
    """The same step of the decoder, which has read so many bytes after the first window; returns also if it is wrong.

    ``code`` is the number within the interval, always below ``size``, whatever the bytes are.
    """
    right = (size >> TOTAL_BITS) * chance
    wrong = 0
    if code >= right:
        wrong, code, size = 1, code - right, size - right
    else:
        size = right
    while size < _LEAST_RANGE:
        place = WINDOW_BYTES + read
        code = (code << 8) + (int(data[place]) if place < len(data) else 0)
        size, read = size << 8, read + 1
    return code, size, read, wrong
