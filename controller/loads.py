"""How busy others keep a device and its MEC: loads that wander around their mean, the same in the twin and live.

An Ornstein-Uhlenbeck walk with a relaxation of ten seconds and a standard deviation of a third of the mean, clipped to
[0, 0.95]. Its kicks come from one table of normal draws, in which every seed has a place of its own to begin: to make a
generator for each episode would take longer than the rest of its start.
"""

from __future__ import annotations

import math
from functools import cache

import numpy as np

from controller.predict.arrivals import spread_seed
from controller.records import Floats, Ints

#: Loads change once a second.
LOAD_STEP_S = 1.0
MAX_LOAD_FRAC = 0.95
#: Loads of a longer episode stay what they were after a day.
MAX_LOAD_STEPS = 86_400
#: Draws in the table, after which the kicks repeat; a power of two.
DRAWS = 1 << 16
_SEED = 11
#: What a step of the walk keeps of the deviation from the mean, and what it adds.
_KEEP = math.exp(-LOAD_STEP_S / 10.0)
_KICK = math.sqrt(1 - _KEEP**2)


@cache
def load_draws() -> Floats:
    """(DRAWS,) standard normal draws. Callers must not change them."""
    return np.random.default_rng(_SEED).standard_normal(DRAWS)


def load_start(seed: Ints) -> Ints:
    """Where in the table the loads of the seeds (B,) begin."""
    return np.asarray((spread_seed(seed) >> 16) & (DRAWS - 1))


def load_series(mean_frac: float, steps: int, seed: int) -> Floats:
    """(steps,) share taken by others at each second. A mean of 0 gives zeros."""
    draws, series, deviation = load_draws(), np.empty(steps), 0.0
    start = int(load_start(np.array([seed]))[0])
    for second in range(steps):
        deviation = next_deviation(draws, start, second, deviation)
        series[second] = load_frac(mean_frac, deviation)
    return series


def next_deviation(draws: Floats, start: int, second: int, deviation: float) -> float:
    """The deviation from the mean at a second, from that of the second before; in standard deviations."""
    draw = draws[(start + second) & (DRAWS - 1)]
    return float(draw) if second == 0 else _KEEP * deviation + _KICK * draw


def load_frac(mean_frac: float, deviation: float) -> float:
    """The share that others take."""
    return min(max(mean_frac * (1.0 + deviation / 3.0), 0.0), MAX_LOAD_FRAC)
