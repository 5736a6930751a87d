"""Places of a tensor (channels, h, w) as two halves of a checkerboard, so that neighbours are shifted slices.

A place is one channel of one cell of the map. Channels are taken in groups of eight, the last group padded. Where row +
column of the cell is even, the first four channels of each group are in the first half; where it is odd, the last four.
So the four neighbours of a place lie in the other half, and of each cell half of the channels are in the first half.

A half is a flat array of bytes: cell by cell, row by row, four bytes for each group. Rows are padded to an odd number
of columns, so that the cells alternate along the whole array, and no neighbour is a cell of another row. Both halves
are the rows of one array, with margins of zeros, so that every neighbour exists. That order is the one in which PyTorch
keeps tensors (channels last), and four channels are one 32-bit number: a device spends little time on either.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

Bytes = NDArray[np.uint8]
Words = NDArray[np.uint32]
_GROUP = np.dtype("<u8")  # eight channels of a cell; the first one is in the lowest byte on every machine
_HALF_GROUP = np.dtype("<u4")
_HALF_BITS = 32


class Grid:
    """The halves of tensors of one shape."""

    def __init__(self, shape: tuple[int, int, int]) -> None:
        channels, h, w = shape
        self.shape = shape
        self.columns = (w + 1) | 1  # of a padded row
        self.cells = h * self.columns
        self.groups = -(-channels // 8)
        self.step = 4 * self.groups  # from a place to the next cell, in a half
        self.row = self.columns * self.step  # from a place to the next row
        self.places = self.cells * self.step  # of a half, with padding
        self.margin = self.row + self.step
        odd = np.arange(self.cells, dtype=_GROUP) % 2
        self._shifts = (_HALF_BITS * np.stack((odd, 1 - odd))).repeat(self.groups, axis=1)

    def zeros(self) -> Bytes:
        """Both halves of zeros (2, margin + places + margin)."""
        return np.zeros((2, self.places + 2 * self.margin), np.uint8)

    def halves(self, array: NDArray[Any]) -> Bytes:
        """Both halves of whether values (channels, h, w) are above 0: 0 or 1, with margins."""
        channels, h, w = self.shape
        padded = np.zeros((h, self.columns, 8 * self.groups), np.bool_)
        np.greater(array.transpose(1, 2, 0), 0, out=padded[:, :w, :channels])
        halves = self.zeros()
        # Of each shifted number, the lower half is kept.
        self.inside(halves).view(_HALF_GROUP)[...] = padded.view(_GROUP).reshape(-1) >> self._shifts
        return halves

    def levels(self, halves: Bytes) -> Bytes:
        """Values (channels, h, w) of both halves (2, places) without margins, the channels next to each other."""
        channels, h, w = self.shape
        shifted = halves.view(_HALF_GROUP) << self._shifts
        groups = shifted[0] | shifted[1]
        cells: Bytes = groups.view(np.uint8).reshape(h, self.columns, -1)[:, :w, :channels]
        return cells.transpose(2, 0, 1)

    def inside(self, halves: Bytes) -> Bytes:
        """Halves (..., places) without margins: a view."""
        return halves[..., self.margin : self.margin + self.places]

    def cross(self, halves: Bytes) -> Bytes:
        """Sums (..., places) over the four neighbours, which are in ``halves`` (with margins).

        So the sums of one half are those of places of the other half.
        """
        n, m, step, row = self.places, self.margin, self.step, self.row
        total: Bytes = halves[..., step : step + n] + halves[..., m + row : m + row + n]
        total += halves[..., row : row + n]
        total += halves[..., m + step : m + step + n]
        return total

    def cell_sums(self, words: Words) -> Words:
        """Sums (..., cells) over the places of each cell, of halves (..., places) that are seen as 32-bit numbers."""
        total = words[..., :: self.groups]
        for group in range(1, self.groups):
            total = total + words[..., group :: self.groups]
        total = total * np.uint32(0x01010101)  # the highest byte is the sum of all four
        total >>= np.uint32(24)
        return total

    def around_cells(self, cells: Words) -> Words:
        """Twice each cell, plus its four neighbours; of (..., cells)."""
        n, columns = self.cells, self.columns
        padded = np.zeros((*cells.shape[:-1], n + 2 * columns), np.uint32)
        padded[..., columns:-columns] = cells
        total = padded[..., : -2 * columns] + padded[..., 2 * columns :]
        total += padded[..., columns - 1 : columns - 1 + n]
        total += padded[..., columns + 1 : columns + 1 + n]
        total += cells
        total += cells
        return total

    def spread(self, cells: Words) -> Bytes:
        """Four bytes of each cell (..., cells), repeated for all places of a half: (..., places)."""
        words = cells if self.groups == 1 else cells.repeat(self.groups, axis=-1)
        return words.view(np.uint8)

    def channel_of(self) -> NDArray[np.intp]:
        """Channel of each place of both halves (2, places); the number of channels at padding."""
        channels, h, w = self.shape
        flat = np.full((h, self.columns, 8 * self.groups), channels)
        flat[:, :w, :channels] = np.arange(channels)
        split = flat.reshape(self.cells, self.groups, 2, 4)
        odd = np.arange(self.cells) % 2
        halves = [split[np.arange(self.cells), :, colour] for colour in (odd, 1 - odd)]
        return np.stack(halves).reshape(2, -1).astype(np.intp)


@lru_cache(maxsize=64)
def grid_of(shape: tuple[int, int, int]) -> Grid:
    """The grid of tensors (channels, h, w)."""
    return Grid(shape)
