"""The passes over the places of one tensor: encoding, decoding, and counting for the fit of tables.

All three visit places in the same order and predict them by the same functions. Plain functions on arrays:
``runtime.codecs.signs.compiled`` compiles them. The arrays of all passes, for tensors (channels, h, w):

* ``before``, ``after`` (h + 2, (w + 2) * channels): the memories of the reference and of this payload, row by row,
* ``indices`` (h, w * channels): working space, of all places in one half,
* ``moved`` (2, h + 2, w + 2): in each cell, the places that changed in the reference's payload, and those of the first
  half that change in this one.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from runtime.codecs.signs.coder import START_RANGE, TOO_LONG, decoded_place, encoded_place, finished, first_window
from runtime.codecs.signs.contexts import (
    ACTIVITY_OF,
    CONTEXT_OF,
    FIRST_NEAR,
    MEMORY_BITS,
    MOST_MOVED,
    MOST_STEPS,
    Bytes,
)

Ints = NDArray[np.int32]


class Predictions(NamedTuple):
    """The tables of one age, ready for look-ups."""

    rank: NDArray[np.uint16]  # by index: the rank times ACTIVITIES
    byte: Bytes  # (2, channels, RANKS * ACTIVITIES) by half, channel, rank and activity: `tables.ONE` + class of cost
    chance: NDArray[np.int64]  # by class: that the prediction is right, in 1 / `powers.TOTAL`


class Space(NamedTuple):
    """The arrays of a pass; see above."""

    before: Bytes
    after: Bytes
    indices: NDArray[np.uint16]
    moved: Ints
    channels: int


def encode(t: Predictions, s: Space, values: NDArray[np.float32], out: Bytes) -> int:
    """Code whether ``values`` (h, w * channels) are above 0 into ``out``; returns the bytes, or `coder.TOO_LONG`.

    The memory after is complete in both cases.
    """
    remember(s, values)
    low, size, length = 0, START_RANGE, 0
    for half in range(2):
        _find_indices(s, half)
        for y in range(len(s.indices)):
            for x in range(s.moved.shape[2] - 2):
                activity = _activity(s.moved[half], y + 1, x + 1)
                for group in range(_first_channel(y, x, half), s.channels, 8):
                    for c in range(group, min(group + 4, s.channels)):
                        place = x * s.channels + c
                        found = _prediction(t, half, s.indices[y, place], c, activity)
                        wrong = _level(s.after[y + 1, s.channels + place]) != found >> 7
                        low, size, length = encoded_place(low, size, length, out, int(t.chance[found & 127]), wrong)
                if length + room_for_a_cell(s.channels) > len(out):
                    return TOO_LONG
    return finished(low, size, length, out)


def decode(t: Predictions, s: Space, data: Bytes) -> int:
    """Decode ``data`` into the memory after, whose margin is filled; returns how many bytes the coder has taken in."""
    _count_moved(s)
    code, size, read = first_window(data), START_RANGE, 0
    for half in range(2):
        _find_indices(s, half)
        for y in range(len(s.indices)):
            for x in range(s.moved.shape[2] - 2):
                activity, changes = _activity(s.moved[half], y + 1, x + 1), 0
                for group in range(_first_channel(y, x, half), s.channels, 8):
                    for c in range(group, min(group + 4, s.channels)):
                        place = x * s.channels + c
                        found = _prediction(t, half, s.indices[y, place], c, activity)
                        code, size, read, wrong = decoded_place(code, size, read, data, int(t.chance[found & 127]))
                        value = _value_after(int(s.before[y + 1, s.channels + place]), (found >> 7) ^ wrong)
                        s.after[y + 1, s.channels + place] = value
                        changes += int(value < 2)
                if half == 0:
                    s.moved[1, y + 1, x + 1] = changes
    return read


def count(counts: Ints, s: Space, values: NDArray[np.float32]) -> None:
    """Add the places of one tensor to ``counts`` (2, channels, ACTIVITIES, contexts, 2): by half, context and level."""
    remember(s, values)
    for half in range(2):
        _find_indices(s, half)
        for y in range(len(s.indices)):
            for x in range(s.moved.shape[2] - 2):
                activity = _activity(s.moved[half], y + 1, x + 1)
                for group in range(_first_channel(y, x, half), s.channels, 8):
                    for c in range(group, min(group + 4, s.channels)):
                        place = x * s.channels + c
                        level = _level(s.after[y + 1, s.channels + place])
                        counts[half, c, activity, CONTEXT_OF[s.indices[y, place]], level] += 1


def remember(s: Space, values: NDArray[np.float32]) -> None:
    """Fill the memory after within its margin, and ``moved``."""
    _count_moved(s)
    for y in range(len(values)):
        before, after = s.before[y + 1, s.channels :], s.after[y + 1, s.channels :]
        for place in range(values.shape[1]):
            after[place] = _value_after(int(before[place]), int(values[y, place] > 0.0))
        for x in range(s.moved.shape[2] - 2):
            changes = 0
            for group in range(_first_channel(y, x, 0), s.channels, 8):
                for c in range(group, min(group + 4, s.channels)):
                    changes += int(after[x * s.channels + c] < 2)
            s.moved[1, y + 1, x + 1] = changes


def _count_moved(s: Space) -> None:
    """Fill ``moved[0]``."""
    for y in range(len(s.indices)):
        before = s.before[y + 1, s.channels :]
        for x in range(s.moved.shape[2] - 2):
            changes = 0
            for c in range(s.channels):
                changes += int(before[x * s.channels + c] < 2)
            s.moved[0, y + 1, x + 1] = changes


def _find_indices(s: Space, half: int) -> None:
    """Fill ``indices``; where a place is of the other half, the number means nothing."""
    c = s.channels
    for y in range(len(s.indices)):
        index, here = s.indices[y], s.before[y + 1, c:]
        up, down, left, right = s.before[y, c:], s.before[y + 2, c:], s.before[y + 1], s.before[y + 1, 2 * c :]
        for i in range(len(index)):
            near = (up[i] & 1) + (down[i] & 1) + (left[i] & 1) + (right[i] & 1)
            index[i] = here[i] + (np.uint16(near) << MEMORY_BITS)
        if half == 0:
            for i in range(len(index)):
                index[i] += FIRST_NEAR << MEMORY_BITS
        else:
            up, down, left, right = s.after[y, c:], s.after[y + 2, c:], s.after[y + 1], s.after[y + 1, 2 * c :]
            for i in range(len(index)):
                near = _decoded(up[i]) + _decoded(down[i]) + _decoded(left[i]) + _decoded(right[i])
                index[i] += near << MEMORY_BITS


def _decoded(value: int) -> int:
    """What a decoded neighbour adds to near."""
    return 5 * _level(value) + 25 * int(value < 2)


def _level(value: int) -> int:
    return int(value) & 1


def _first_channel(y: int, x: int, half: int) -> int:
    """The first channel of a cell that is in this half; four of each eight are, from this one on."""
    return 4 * ((y + x + half) & 1)


def _value_after(before: int, level: int) -> int:
    """Of the memory at a place that had ``before`` and now has this level."""
    return min((before >> 1) + 1, MOST_STEPS) * 2 + level if (before & 1) == level else level


def _activity(moved: Ints, y: int, x: int) -> int:
    """Group of twice the changes in a cell plus those in its four neighbours."""
    around = moved[y - 1, x] + moved[y + 1, x] + moved[y, x - 1] + moved[y, x + 1]
    return int(ACTIVITY_OF[min(2 * int(moved[y, x]) + int(around), MOST_MOVED)])


def _prediction(t: Predictions, half: int, index: int, channel: int, activity: int) -> int:
    """The byte of the prediction of a place."""
    return int(t.byte[half, channel, int(t.rank[index]) + activity])


def room_for_a_cell(channels: int) -> int:
    """Bytes that the places of a cell and the end of the payload may take: at most 3 for a place, and 7."""
    return 3 * channels + 8
