"""Area averaging in plain loops: what `runtime.workloads.area` compiles."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

#: A sum is divided by a product and a shift. Exact for up to 15 x 15 pixels, and within 32 bits.
SHIFT = np.uint32(24)


class Ratio(NamedTuple):
    """How a side shrinks: every ``step_in`` pixels become ``step_out``.

    Pixel p of these is the sum over t of ``weight[p, t]`` times pixel ``first[p]`` + t, divided by ``step_in``.
    """

    step_in: int
    step_out: int
    first: NDArray[np.int64]  # (step_out,)
    weight: NDArray[np.uint16]  # (step_out, taps)


class AreaSpace(NamedTuple):
    """Working space for rows of ``n`` = columns * colours numbers."""

    down: NDArray[np.uint16]  # (n,): sums over rows
    across: NDArray[np.uint16]  # (n,): sums over columns too
    means: NDArray[np.uint8]  # (n,)


def average(r: Ratio, s: AreaSpace, pixels: NDArray[np.uint8], colours: int, out: NDArray[np.uint8]) -> None:
    """Fill ``out`` (h, w * colours) for ``pixels`` (rows, columns * colours).

    The means across are computed at every place of a row, though few are kept: vector instructions like it that way.
    """
    for y in range(len(out)):
        phase = y % r.step_out
        row = y // r.step_out * r.step_in + r.first[phase]
        s.down[:] = 0
        for t in range(r.weight.shape[1]):
            _add(s.down, pixels[row + t], r.weight[phase, t])
        for p in range(r.step_out):
            s.across[:] = r.step_in * r.step_in // 2
            for t in range(r.weight.shape[1]):
                _add(s.across, s.down[t * colours :], r.weight[p, t])
            _divide(s.means, s.across, np.uint32(-(-(1 << 24) // (r.step_in * r.step_in))))
            if colours == 3:
                _pick_3(out[y, 3 * p :], s.means[3 * r.first[p] :], 3 * r.step_out, 3 * r.step_in)
            else:
                _pick(out[y, p * colours :], s.means[colours * r.first[p] :], r.step_out, r.step_in, colours)


def _add(sums: NDArray[np.uint16], row: NDArray[np.uint8] | NDArray[np.uint16], weight: np.uint16) -> None:
    for i in range(min(len(sums), len(row))):
        sums[i] += np.uint16(np.uint16(row[i]) * weight)


def _divide(means: NDArray[np.uint8], sums: NDArray[np.uint16], inverse: np.uint32) -> None:
    for i in range(len(means)):
        means[i] = np.uint32(np.uint32(sums[i]) * inverse) >> SHIFT  # products of 32 bits become vector instructions


def _pick_3(out: NDArray[np.uint8], means: NDArray[np.uint8], step_out: int, step_in: int) -> None:
    """Three neighbours of each step."""
    for j in range((len(out) + step_out - 3) // step_out):
        a, b = j * step_out, j * step_in
        out[a], out[a + 1], out[a + 2] = means[b], means[b + 1], means[b + 2]


def _pick(out: NDArray[np.uint8], means: NDArray[np.uint8], step_out: int, step_in: int, count: int) -> None:
    """So many neighbours of each step; steps are in pixels of as many numbers."""
    for j in range((len(out) // count + step_out - 1) // step_out):
        for c in range(count):
            out[j * step_out * count + c] = means[j * step_in * count + c]
