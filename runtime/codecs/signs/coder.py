"""A range coder for long sequences of binary places where almost every place is as predicted.

Each place has a cost: the information, in units of `powers.UNIT` per bit, of being as predicted. It is at most one
bit. The coder does not code place by place. It divides the sequence into blocks of about eight bits of cost, and codes
in each block where the next exception is, or that there is no further one. The probability that places a to b - 1 are
all as predicted is 2 ** -(cost of a to b - 1), so one table of powers gives the interval of each outcome. The number of
coding steps is that of exceptions plus that of blocks, some hundred for 40,000 places; the code length is that of
coding place by place.

Range coding: G. N. N. Martin, "Range encoding" (1979). Python's integers hold the whole interval, so no carry has to be
propagated, and all arithmetic is exact.

Why not a library: constriction 0.5 has no wheels for Linux on ARM and no source package, so the dependency would keep
the project off the very devices it is for; and place by place it takes several times as long.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator, Sequence
from math import log2
from typing import Any

import numpy as np
from numpy.typing import NDArray

from controller.errors import RemoteProtocolError
from runtime.codecs.signs.powers import (
    COARSE,
    DROPPED_BITS,
    FINE,
    FINE_BITS,
    FINE_MASK,
    TOTAL,
    TOTAL_BITS,
    UNIT,
    survivals,
)

BLOCK_UNITS = 8 * UNIT
_FIRST_BYTES = 8
_STEP_BITS = 32
_LEAST_RANGE = 1 << 48  # 16 bits above TOTAL, so that rounding costs nothing worth mentioning
_SPARE_BYTES = 10  # of the interval's last bytes, that many need not be sent
_BEFORE_AFTER = np.array([[0], [1]])

Ints = NDArray[np.signedinteger[Any]]


def cumulative(costs: NDArray[np.int32]) -> Ints:
    """Cost of all places before each place, and of all of them: (places + 1,)."""
    # Half the memory is faster. A place costs at most a bit.
    sums: Ints = np.zeros(len(costs) + 1, np.int32 if len(costs) * UNIT < 1 << 31 else np.int64)
    np.add.accumulate(costs, out=sums[1:])  # np.cumsum is the same in more steps
    return sums


def _block_ends(sums: Ints, parts: Sequence[int]) -> Ints:
    """Where blocks end. Each part of the places, which ends before one of ``parts``, has blocks of its own."""
    limits, start = list[int](), 0
    for part in parts:
        total = int(sums[part])
        limits += *range(start + BLOCK_UNITS, total, BLOCK_UNITS), total
        start = total
    ends: Ints = sums.searchsorted(np.array(limits, sums.dtype))
    return ends


class Encoder:
    """Encodes exceptions; `finish` returns the bytes."""

    def __init__(self) -> None:
        self._low, self._range, self._bytes = 0, 1 << (8 * _FIRST_BYTES), _FIRST_BYTES

    def encode(self, sums: Ints, exceptions: Ints, parts: Sequence[int] = ()) -> None:
        """Encode the sorted places of all exceptions. ``sums``: see `cumulative`; an exception's cost is above 0.

        ``parts``: where parts of the places end that are decoded one by one, the last one included; default: one part.
        """
        low, range_ = self._low, self._range
        for upper, lower in _survivals(sums, exceptions, parts or (len(sums) - 1,)):
            share, below, width = range_ >> TOTAL_BITS, TOTAL - upper, upper - lower
            low += share * below
            # The interval at the top also gets what the division leaves over.
            range_ = share * width if lower else range_ - share * below
            while range_ < _LEAST_RANGE:
                low, range_, self._bytes = low << _STEP_BITS, range_ << _STEP_BITS, self._bytes + _STEP_BITS // 8
        self._low, self._range = low, range_

    def finish(self) -> bytes:
        """The shortest bytes that state a number in the interval; the decoder appends zeros."""
        bits = self._range.bit_length() - 1
        number = -(-self._low >> bits) << bits
        return number.to_bytes(self._bytes, "big").rstrip(b"\0").ljust(self._bytes - _SPARE_BYTES, b"\0")


def _survivals(sums: Ints, exceptions: Ints, parts: Sequence[int]) -> Iterator[tuple[int, int]]:
    """Probabilities, in 1 / TOTAL, that no exception comes before each coding step, and none up to it."""
    steps = np.concatenate((2 * exceptions + 1, 2 * _block_ends(sums, parts)))
    steps.sort()  # at one place, a block ends before an exception
    # Before the place where the step stops, and after it if that is an exception.
    units = sums.take((steps + _BEFORE_AFTER) >> 1)
    units[:, 1:] -= units[1, :-1].copy()  # each step counts from where the one before it ended
    upper, lower = survivals(units)
    lower *= steps & 1  # the end of a block has all that is left
    return zip(upper.tolist(), lower.tolist(), strict=True)


class Decoder:
    """Decodes what `Encoder.finish` returned. RemoteProtocolError for any other bytes that it can tell apart."""

    def __init__(self, data: bytes) -> None:
        self._data, self._read, self._range = data, _FIRST_BYTES, 1 << (8 * _FIRST_BYTES)
        self._code = int.from_bytes(data[:_FIRST_BYTES].ljust(_FIRST_BYTES, b"\0"), "big")

    def decode(self, sums: Ints, most: int) -> list[int]:
        """The places of all exceptions, of which there may be at most ``most``."""
        exceptions: list[int] = []
        view: Any = memoryview(sums.data)  # several times as fast as the array for single elements
        start = 0
        for end in _block_ends(sums, (len(sums) - 1,)).tolist():
            self._decode_block(view, start, end, exceptions)
            start = end
            if len(exceptions) > most:
                raise RemoteProtocolError(f"signs with more than {most} exceptions; expected stored levels instead")
        return exceptions

    def _decode_block(self, sums: Any, start: int, end: int, exceptions: list[int]) -> None:
        """Append the exceptions from ``start`` to ``end``. The time goes here, so `survival` is written out."""
        code, range_ = self._code, self._range
        while start < end:
            origin, share = sums[start], range_ >> TOTAL_BITS
            least = max(TOTAL - code // share, 1)  # what the division leaves over belongs to the top
            # The last place whose survival is at least ``least``. The logarithm is only a guess, and may be one off.
            place = bisect_right(sums, origin + int((TOTAL_BITS - log2(least)) * UNIT), start, end + 1) - 1
            units = sums[place] - origin
            while (upper := COARSE[units >> FINE_BITS] * FINE[units & FINE_MASK] >> DROPPED_BITS) < least:
                place -= 1
                units = sums[place] - origin
            lower = 0
            while place < end:
                units = sums[place + 1] - origin
                lower = COARSE[units >> FINE_BITS] * FINE[units & FINE_MASK] >> DROPPED_BITS
                if lower < least:
                    break
                place, upper = place + 1, lower
            code -= share * (TOTAL - upper)
            if place < end:
                exceptions.append(place)
                range_ = share * (upper - lower)
            else:
                range_ -= share * (TOTAL - upper)
            start = place + 1
            while range_ < _LEAST_RANGE:
                code, range_ = code << _STEP_BITS | self._more(), range_ << _STEP_BITS
        self._code, self._range = code, range_

    def _more(self) -> int:
        step = self._data[self._read : self._read + _STEP_BITS // 8].ljust(_STEP_BITS // 8, b"\0")
        self._read += _STEP_BITS // 8
        if self._read - _SPARE_BYTES > len(self._data):
            raise RemoteProtocolError(f"signs end after {len(self._data)} bytes; expected more")
        return int.from_bytes(step, "big")

    def finish(self) -> None:
        """RemoteProtocolError if bytes follow."""
        if len(self._data) > self._read:
            raise RemoteProtocolError(f"signs of {len(self._data)} bytes; expected at most {self._read}")
