"""When do the requests of other devices come to the MEC? One stream of arrivals, for the twin and for real processes.

Others send Poisson requests of one fixed service time, which is the unit of time here. All loads thin one common stream
of arrivals: an arrival exists from a certain load on. So when the load changes the traffic of the next second is nearly
that of the load before, and an episode meets the same requests wherever it is played.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from typing import NamedTuple

import numpy as np

from controller.records import Floats, Ints

#: The ladder of loads: 0 to 95 %, by one.
LEVELS = 96
#: Service times that the stream lasts before it repeats; a power of two.
STREAM_UNITS = 1 << 14
_SEED = 5  # the mean wait is within 6 % of Pollaczek-Khinchine at every load of the ladder (tested)
_HASH = 0x9E37_79B1  # spreads neighbouring seeds over the stream (Knuth's multiplicative hash)


class Arrivals(NamedTuple):
    """(N,) each, in order of time."""

    at: Floats  # in service times, from 0 to STREAM_UNITS
    needed_load: Floats  # from which on the arrival exists


@cache
def arrivals() -> Arrivals:
    """The stream; not to be changed."""
    rng = np.random.default_rng(_SEED)
    top = (LEVELS - 1) / 100
    count = round(top * STREAM_UNITS)  # as many as expected, and so at every load: the stream is long but finite
    at = np.sort(rng.uniform(0.0, STREAM_UNITS, count))
    return Arrivals(at, rng.permutation(count) * (top / count))


def arrivals_from(start: float) -> Iterator[tuple[float, float]]:
    """Arrivals without end, as service times after ``start`` and needed loads."""
    stream = arrivals()
    place, lap = int(np.searchsorted(stream.at, start)), 0.0
    while True:
        if place == len(stream.at):
            place, lap = 0, lap + STREAM_UNITS
        yield float(stream.at[place]) + lap - start, float(stream.needed_load[place])
        place += 1


def level_of(load_frac: Floats) -> Ints:
    """Place of each load on the ladder, which is the load in hundredths."""
    return np.minimum(np.rint(load_frac * 100), LEVELS - 1).astype(np.int64)


def spread_seed(seed: Ints) -> Ints:
    """Seeds that are close to each other, far apart; a non-negative number of up to 63 bits."""
    return np.asarray(seed.astype(np.int64) * _HASH)


def stream_start(seed: Ints) -> Floats:
    """Where on the stream the episode of a seed begins, in service times."""
    return ((spread_seed(seed) >> 16) & (STREAM_UNITS - 1)).astype(np.float64)
