"""A range coder for long sequences of binary places where almost every place is as predicted.

Each place has a cost: the information, in units of `powers.UNIT` per bit, of being as predicted. It is at most one
bit. The coder does not code place by place. It codes where the next exception is, as a distance in cost: the
probability that places a to b - 1 are all as predicted is 2 ** -(cost of a to b - 1), so one table of powers gives the
interval of each outcome. A distance of more than eight bits is rare, and takes a step for each eight bits; a place on
such a limit belongs to the bits before it. So the number of coding steps is little more than that of exceptions, less
than a hundred for 40,000 places of a detector; the code length is that of coding place by place.

Range coding: G. N. N. Martin, "Range encoding" (1979). Python's integers hold the whole interval, so no carry has to be
propagated, and all arithmetic is exact.

Why not a library: constriction 0.5 has no wheels for Linux on ARM and no source package, so the dependency would keep
the project off the very devices it is for; and place by place it takes several times as long.
"""

from __future__ import annotations

from bisect import bisect_right
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
    survival,
    survivals,
)

STEP_UNITS = 8 * UNIT
STEP_SURVIVAL = TOTAL >> 8
_FULL_STEP = (STEP_SURVIVAL, 0)
_FIRST_BYTES = 8
_STEP_BITS = 32
_LEAST_RANGE = 1 << 48  # 16 bits above TOTAL, so that rounding costs nothing worth mentioning
_SPARE_BYTES = 10  # of the interval's last bytes, that many need not be sent
_BEFORE_AFTER = np.array([[0], [1]])

Ints = NDArray[np.integer[Any]]


def cumulative(costs: NDArray[np.int32]) -> Ints:
    """Cost of all places before each place, and of all of them: (places + 1,)."""
    # Half the memory is faster. A place costs at most a bit; less than a step is added to a sum.
    if len(costs) * UNIT + STEP_UNITS < 1 << 32:
        sums: Ints = np.zeros(len(costs) + 1, np.uint32)
        np.add.accumulate(costs.view(np.uint32), out=sums[1:])
        return sums
    return np.concatenate(([0], costs.cumsum(dtype=np.int64)))


class Encoder:
    """Encodes exceptions; `finish` returns the bytes."""

    def __init__(self) -> None:
        self._low, self._range, self._bytes = 0, 1 << (8 * _FIRST_BYTES), _FIRST_BYTES
        self._units = 0  # since the last exception, or the last full step

    def encode(self, sums: Ints, exceptions: Ints) -> None:
        """Encode the sorted places of all exceptions. ``sums``: see `cumulative`; an exception's cost is above 0."""
        last = 0
        if len(exceptions):
            self._narrow(_intervals(sums, exceptions, self._units))
            last, self._units = int(sums[exceptions[-1] + 1]), 0
        full_steps, self._units = divmod(self._units + int(sums[-1]) - last, STEP_UNITS)
        self._narrow([_FULL_STEP] * full_steps)

    def _narrow(self, intervals: list[tuple[int, int]]) -> None:
        """Take steps from survival ``lower`` to ``upper``; one down to 0 also gets what the division leaves over."""
        low, range_ = self._low, self._range
        for upper, lower in intervals:
            share = range_ >> TOTAL_BITS
            below = share * (TOTAL - upper)
            low += below
            range_ = share * (upper - lower) if lower else range_ - below
            while range_ < _LEAST_RANGE:
                low, range_, self._bytes = low << _STEP_BITS, range_ << _STEP_BITS, self._bytes + _STEP_BITS // 8
        self._low, self._range = low, range_

    def finish(self) -> bytes:
        """The shortest bytes that state a number in the interval; the decoder appends zeros."""
        # No further exception. The decoder does not take this step, so the interval stays as long as it is.
        below = (self._range >> TOTAL_BITS) * (TOTAL - survival(self._units))
        low, range_ = self._low + below, self._range - below
        bits = range_.bit_length() - 1
        number = -(-low >> bits) << bits
        return number.to_bytes(self._bytes, "big").rstrip(b"\0").ljust(self._bytes - _SPARE_BYTES, b"\0")


def _intervals(sums: Ints, exceptions: Ints, units_before: int) -> list[tuple[int, int]]:
    """Probabilities, in 1 / TOTAL, of no exception before each step and up to it."""
    units = sums.take(exceptions + _BEFORE_AFTER)
    units[:, 1:] -= units[1, :-1].copy()  # counted from where the last exception ended
    units[:, 0] += units_before
    full_steps = units[0] // STEP_UNITS
    if not full_steps.any():
        return _pairs(units)
    units -= full_steps * STEP_UNITS
    counts = full_steps.tolist()
    return [step for count, pair in zip(counts, _pairs(units), strict=True) for step in [_FULL_STEP] * count + [pair]]


def _pairs(units: Ints) -> list[tuple[int, int]]:
    upper, lower = survivals(np.minimum(units, STEP_UNITS)).tolist()
    return list(zip(upper, lower, strict=True))


class Decoder:
    """Decodes what `Encoder.finish` returned. RemoteProtocolError for any other bytes that it can tell apart."""

    def __init__(self, data: bytes) -> None:
        self._data, self._read, self._range = data, _FIRST_BYTES, 1 << (8 * _FIRST_BYTES)
        self._code = int.from_bytes(data[:_FIRST_BYTES].ljust(_FIRST_BYTES, b"\0"), "big")
        self._units = 0  # since the last exception, or the last full step

    def decode(self, sums: Ints, most: int) -> list[int]:
        """The places of all exceptions, of which there may be at most ``most``."""
        exceptions: list[int] = []
        view: Any = memoryview(sums.data)  # several times as fast as the array for single elements
        end, total, start, origin = len(sums) - 1, int(sums[-1]), 0, -self._units
        while True:
            share = self._range >> TOTAL_BITS
            least = max(TOTAL - self._code // share, 1)  # what the division leaves over belongs to the top
            left = total - origin
            if survival(min(left, STEP_UNITS)) < least:
                place, upper, lower = _exception(view, start, end, origin, least)
                exceptions.append(place)
                if len(exceptions) > most:
                    raise RemoteProtocolError(f"signs with more than {most} exceptions; expected stored levels instead")
                self._narrow(share, upper, lower)
                start, origin = place + 1, view[place + 1]
            elif left >= STEP_UNITS:
                self._narrow(share, STEP_SURVIVAL, 0)
                origin += STEP_UNITS
            else:
                self._units = left
                return exceptions

    def _narrow(self, share: int, upper: int, lower: int) -> None:
        below = share * (TOTAL - upper)
        code, range_ = self._code - below, share * (upper - lower) if lower else self._range - below
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


def _exception(sums: Any, start: int, end: int, origin: int, least: int) -> tuple[int, int, int]:
    """The place from ``start`` on whose interval of survivals holds ``least``, and that interval.

    It exists: the survival of what is left, or of a full step, is below ``least``. The time goes here, so `survival` is
    written out.
    """
    # The last place whose survival is at least ``least``. The logarithm is only a guess, and may be one off.
    guess = origin + int((TOTAL_BITS - log2(least)) * UNIT)
    place = max(bisect_right(sums, guess, start, end + 1) - 1, start)
    while True:
        units = max(sums[place] - origin, 0)  # below 0: a full step ends within the place
        upper = COARSE[units >> FINE_BITS] * FINE[units & FINE_MASK] >> DROPPED_BITS
        if upper >= least:
            break
        place -= 1
    while True:
        units = min(sums[place + 1] - origin, STEP_UNITS)
        lower = COARSE[units >> FINE_BITS] * FINE[units & FINE_MASK] >> DROPPED_BITS
        if lower < least:
            return place, upper, lower
        place, upper = place + 1, lower
