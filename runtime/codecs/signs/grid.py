"""Places of a tensor (channels, h, w) as two halves of a checkerboard, so that neighbours are shifted slices.

Each channel is a plane of rows, padded to an odd number of rows and of columns; all planes follow each other in one
flat array. The even places of that array are the first half, the odd places the second. Rows and planes have odd
lengths, so the four neighbours of a place lie in the other half, its diagonal neighbours in the same half, and
consecutive channels have opposite colours: of each cell, half of the channels are in the first half. One padding
column separates rows, and at least one padding row separates planes, so no neighbour is a place of another row.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

Bytes = NDArray[np.uint8]
Half = Bytes  # (margin + places + margin,)


@dataclass(frozen=True)
class Grid:
    """The two halves of tensors of one shape."""

    shape: tuple[int, int, int]
    columns: int  # of a padded row
    plane: int  # places of a padded channel
    channels: int  # rounded up to an even number

    @property
    def places(self) -> int:
        """Places of one half, with padding."""
        return self.channels // 2 * self.plane

    @property
    def margin(self) -> int:
        """Zeros before and after a half, so that every neighbour exists."""
        return (self.columns + 1) // 2

    def halves(self, levels: NDArray[np.bool_]) -> tuple[Half, Half]:
        """Both halves of levels (channels, h, w), with margins."""
        flat = np.zeros(2 * self.places, np.uint8)
        self._inner(flat)[...] = levels
        return self.with_margin(flat[0::2]), self.with_margin(flat[1::2])

    def levels(self, first: Bytes, second: Bytes) -> Bytes:
        """Levels (channels, h, w) of both halves without margins."""
        flat = np.empty(2 * self.places, np.uint8)
        flat[0::2], flat[1::2] = first, second
        return self._inner(flat)

    def _inner(self, flat: NDArray[Any]) -> NDArray[Any]:
        channels, h, w = self.shape
        return flat.reshape(self.channels, -1, self.columns)[:channels, :h, :w]

    def with_margin(self, values: Bytes) -> Half:
        half = np.zeros(self.places + 2 * self.margin, np.uint8)
        self.inside(half)[...] = values
        return half

    def inside(self, half: Half) -> Bytes:
        """A half without margins."""
        return half[self.margin : self.margin + self.places]

    def cross(self, other: Half, second: bool) -> Bytes:
        """Sum over the four neighbours of each place of one half; they lie in the other half."""
        m, n, up, down = self.margin, self.places, (self.columns + 1) // 2, (self.columns - 1) // 2
        shifts = (-up, -1, 0, down) if not second else (-down, 0, 1, up)
        return _sum(*(other[m + shift : m + shift + n] for shift in shifts))

    def diagonal(self, same: Half) -> Bytes:
        """Sum over the four diagonal neighbours of each place; they lie in the same half."""
        m, n, up, down = self.margin, self.places, (self.columns + 1) // 2, (self.columns - 1) // 2
        return _sum(*(same[m + shift : m + shift + n] for shift in (-up, -down, down, up)))

    def cells(self, first: Bytes | None, second: Bytes | None) -> NDArray[np.uint16]:
        """Sums over the channels of halves without margins: a value for each cell of a padded plane."""
        sums, even = np.zeros(self.plane, np.uint16), (self.plane + 1) // 2
        small = np.uint8 if self.channels < 256 else np.uint16  # bytes are added faster
        for half, offset in ((first, 0), (second, 1)):
            if half is not None:
                sum_ = half.reshape(-1, self.plane).sum(axis=0, dtype=small)
                split = even - offset
                sums[offset::2] += sum_[:split]
                sums[1 - offset :: 2] += sum_[split:]
        return sums

    def spread(self, cells: NDArray[np.uint16], second: bool) -> NDArray[np.uint16]:
        """Values of cells in the order of a half; they repeat every second channel: (plane,)."""
        return np.concatenate((cells[1::2], cells[0::2]) if second else (cells[0::2], cells[1::2]))

    def around(self, cells: NDArray[np.uint16]) -> NDArray[np.uint16]:
        """Twice each cell, plus its four neighbours."""
        start, n = self.columns, self.plane
        padded = np.zeros(n + 2 * start, np.uint16)
        padded[start : start + n] = cells
        total = 2 * cells
        for shift in (-self.columns, -1, 1, self.columns):
            total += padded[start + shift : start + shift + n]
        return total

    def channel_of(self) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
        """Channel of each place of both halves; the number of channels at padding."""
        flat = np.full(2 * self.places, self.shape[0])
        self._inner(flat)[...] = np.arange(self.shape[0])[:, None, None]
        return flat[0::2].astype(np.intp), flat[1::2].astype(np.intp)


def _sum(first: Bytes, second: Bytes, *others: Bytes) -> Bytes:
    total = first + second
    for other in others:
        total += other
    return total


@lru_cache(maxsize=64)
def grid_of(shape: tuple[int, int, int]) -> Grid:
    """The grid of tensors (channels, h, w)."""
    channels, h, w = shape
    rows, columns = (h + 1) | 1, (w + 1) | 1
    return Grid(shape, columns, rows * columns, channels + channels % 2)
