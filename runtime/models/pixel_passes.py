"""The encoder of pixels in plain loops: what `runtime.models.pixel_encoder` compiles.

Two convolutions. The innermost loops run along rows and have no conditions, so a compiler turns them into vector
instructions; each takes several outputs and several inputs at once, so that sums stay in registers.

The second convolution takes every other row and column, so what lies between the two is kept in four maps: even and odd
rows, even and odd columns. Row by row, each of them is one long row with a margin of one row and one column, and every
tap of the 3 x 3 kernel is such a row from some place on.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

PATCH = 4  # side of a patch of pixels, and stride of the first convolution
COLOURS = 3
TAPS = PATCH * PATCH * COLOURS
#: Rows of patches that the first convolution takes at once: short rows are not worth the start of a loop.
BAND = 4
_CHUNK = 384  # outputs of the second convolution
#: Outputs that one innermost loop computes. Numbers of outputs are padded to a multiple.
LANES = 4

Floats = NDArray[np.float32]


class EncoderWeights(NamedTuple):
    """Weights of both convolutions, with the normalisation of pixels and the batch norm in them."""

    first: Floats  # (P, TAPS) for patches (row, column, colour)
    first_bias: Floats  # (P,)
    second: Floats  # (C padded, P, 3, 3)
    second_bias: Floats  # (C padded,)


class EncoderSpace(NamedTuple):
    """Working space for pictures of one size, whose output has h rows and w columns; the margins are 0."""

    colours: NDArray[np.uint8]  # (COLOURS, columns of pixels): one row of pixels
    planes: Floats  # (TAPS, BAND * columns of patches): a band of rows of patches, each tap a row of its own
    sums: Floats  # (P, BAND * columns of patches): the first convolution of a band
    maps: Floats  # (2, 2, P, (h + 1) * (w + 1) + 1) by parity of the row and of the column
    outputs: Floats  # (C padded, h * (w + 1)): with a last column in each row that means nothing


def encode_pixels(w: EncoderWeights, s: EncoderSpace, pixels: NDArray[np.uint8], signs: Floats) -> None:
    """Fill ``signs`` (h, w, C) with -1 and +1 for ``pixels`` (rows, columns * 3), whole patches."""
    pitch, columns, rows = signs.shape[1] + 1, s.planes.shape[1] // BAND, len(pixels) // PATCH
    for first in range(0, rows, BAND):
        band = range(first, min(first + BAND, rows))
        for row in band:
            for dy in range(PATCH):
                _spread(s, dy, pixels[PATCH * row + dy], (row - first) * columns, columns)
        _first(w, s)  # where the last band is shorter, what is left of the one before is computed again
        for row in band:
            begin, start = (row - first) * columns, (row // 2 + 1) * pitch + 1
            for o in range(len(w.first)):
                total = s.sums[o, begin : begin + columns]
                _part(total, s.maps[row % 2, 0, o, start:], s.maps[row % 2, 1, o, start:])
    _second(w, s, pitch)
    for c in range(signs.shape[2]):
        for y in range(len(signs)):
            for x in range(signs.shape[1]):
                signs[y, x, c] = np.float32(1.0) if s.outputs[c, y * pitch + x] > 0.0 else np.float32(-1.0)


def _spread(s: EncoderSpace, dy: int, pixels: NDArray[np.uint8], begin: int, columns: int) -> None:
    """Row ``dy`` of a row of patches: pixels to one row for each tap, from place ``begin`` on. By colour first, since
    vector instructions take apart only few neighbours at once."""
    red, green, blue = s.colours[0], s.colours[1], s.colours[2]
    for x in range(len(red)):
        red[x], green[x], blue[x] = pixels[3 * x], pixels[3 * x + 1], pixels[3 * x + 2]
    for colour in range(COLOURS):
        row, first = s.colours[colour], TAPS // PATCH * dy + colour
        a, b = s.planes[first, begin : begin + columns], s.planes[first + 3, begin : begin + columns]
        c, d = s.planes[first + 6, begin : begin + columns], s.planes[first + 9, begin : begin + columns]
        for x in range(columns):
            a[x], b[x], c[x], d[x] = row[4 * x], row[4 * x + 1], row[4 * x + 2], row[4 * x + 3]


def _first(w: EncoderWeights, s: EncoderSpace) -> None:
    """The first convolution of a band."""
    for o in range(0, len(w.first), LANES):
        a, b, c, d = s.sums[o], s.sums[o + 1], s.sums[o + 2], s.sums[o + 3]
        a[:], b[:], c[:], d[:] = w.first_bias[o], w.first_bias[o + 1], w.first_bias[o + 2], w.first_bias[o + 3]
        for k in range(0, TAPS, 3):
            _add_taps(a, b, c, d, s.planes[k], s.planes[k + 1], s.planes[k + 2], w.first[o : o + LANES, k : k + 3])


def _part(total: Floats, even: Floats, odd: Floats) -> None:
    """A ReLU; even and odd columns apart."""
    half = len(total) // 2
    for x in range(half):
        even[x], odd[x] = max(total[2 * x], np.float32(0.0)), max(total[2 * x + 1], np.float32(0.0))
    if len(total) % 2:
        even[half] = max(total[2 * half], np.float32(0.0))


def _second(w: EncoderWeights, s: EncoderSpace, pitch: int) -> None:
    """The second convolution, of a few rows at a time, which fit in the fastest cache."""
    for start in range(0, s.outputs.shape[1], _CHUNK):
        stop = min(start + _CHUNK, s.outputs.shape[1])
        for o in range(0, len(w.second), LANES):
            a, b = s.outputs[o, start:stop], s.outputs[o + 1, start:stop]
            c, d = s.outputs[o + 2, start:stop], s.outputs[o + 3, start:stop]
            a[:], b[:], c[:], d[:] = w.second_bias[o], w.second_bias[o + 1], w.second_bias[o + 2], w.second_bias[o + 3]
            for i in range(len(w.first)):
                for dy in range(3):
                    parity, first = (dy + 1) % 2, start + pitch * ((dy + 1) // 2)
                    odd, even = s.maps[parity, 1, i, first:], s.maps[parity, 0, i, first + 1 :]
                    _add_taps(a, b, c, d, odd, even, odd[1:], w.second[o : o + LANES, i, dy])


def _add_taps(a: Floats, b: Floats, c: Floats, d: Floats, p: Floats, q: Floats, r: Floats, w: Floats) -> None:
    """Add rows p, q, r with weights (LANES, 3) to the four sums."""
    a0, a1, a2 = w[0, 0], w[0, 1], w[0, 2]
    b0, b1, b2 = w[1, 0], w[1, 1], w[1, 2]
    c0, c1, c2 = w[2, 0], w[2, 1], w[2, 2]
    d0, d1, d2 = w[3, 0], w[3, 1], w[3, 2]
    for x in range(len(a)):
        a[x] += p[x] * a0 + q[x] * a1 + r[x] * a2
        b[x] += p[x] * b0 + q[x] * b1 + r[x] * b2
        c[x] += p[x] * c0 + q[x] * c1 + r[x] * c2
        d[x] += p[x] * d0 + q[x] * d1 + r[x] * d2
