"""Arrival times of other devices' requests at the MEC: one stream, for the twin and for real processes.

Other devices send Poisson requests with one fixed service time, which is the unit of time here. All loads thin one
common stream of arrivals: each arrival exists from a certain load on. So a small change of the load changes the traffic
little, and an episode meets the same requests in the twin and live.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from typing import NamedTuple

import numpy as np

from controller.records import Floats, Ints

#: Number of load levels: 0 to 95 %, in steps of one.
LEVELS = 96
#: Length of the stream in service times, after which it repeats; a power of two.
STREAM_UNITS = 1 << 14
_SEED = 5  # the mean wait is within 6 % of Pollaczek-Khinchine at every load of the ladder (tested)
_HASH = 0x9E37_79B1  # spreads neighbouring seeds over the stream (Knuth's multiplicative hash)


class Arrivals(NamedTuple):
    """(N,) each, in order of time."""

    at: Floats  # in service times, from 0 to STREAM_UNITS
    needed_load: Floats  # least load at which the arrival exists, as a fraction


@cache
def arrivals() -> Arrivals:
    """The stream. Callers must not change it."""
    rng = np.random.default_rng(_SEED)
    top = (LEVELS - 1) / 100
    count = round(top * STREAM_UNITS)  # exactly the expected number, so that the mean is right at every load
    at = np.sort(rng.uniform(0.0, STREAM_UNITS, count))
    return Arrivals(at, rng.permutation(count) * (top / count))


def arrivals_from(start: float) -> Iterator[tuple[float, float]]:
    """Endless pairs of arrival time, in service times after ``start``, and needed load."""
    stream = arrivals()
    place, lap = int(np.searchsorted(stream.at, start)), 0.0
    while True:
        if place == len(stream.at):
            place, lap = 0, lap + STREAM_UNITS
        yield float(stream.at[place]) + lap - start, float(stream.needed_load[place])
        place += 1


def level_of(load_frac: Floats) -> Ints:
    """Level of each load (B,): the load in hundredths, at most LEVELS - 1."""
    return np.minimum(np.rint(load_frac * 100), LEVELS - 1).astype(np.int64)


def spread_seed(seed: Ints) -> Ints:
    """Neighbouring seeds (B,) as distant numbers, non-negative and of up to 63 bits."""
    return np.asarray(seed.astype(np.int64) * _HASH)


def stream_start(seed: Ints) -> Floats:
    """Where on the stream the episodes of the seeds (B,) begin, in service times."""
    return ((spread_seed(seed) >> 16) & (STREAM_UNITS - 1)).astype(np.float64)
