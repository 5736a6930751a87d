"""Generated bandwidth traces: Markov-modulated, fitted to eleven families of links, and modelled for six narrow ones.

For each family, log bandwidth is the sum of

- the level of the trace, normally distributed between traces,
- a slow state: a Markov chain over seven levels with geometric dwell times, which moves to any level with probability
  `jump_frac`, else one level up or down,
- fast noise: log-normal, independent for each sample.

An independent on/off chain adds outages. `python benchmarks/fit_traces.py DIR` fits the parameters to statistics of
published measurements (`TARGETS`); the measurements themselves are not part of the project. For the narrow links of
`NARROW` there are no open traces; what their parameters are modelled from stands beside them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from statistics import NormalDist
from typing import Literal

import numpy as np

from controller.errors import unknown_name
from controller.predict.uplink import Trace, TraceBank
from controller.records import Bools, Floats

Split = Literal["train", "test"]

#: Levels of the slow state: midpoints of seven equally likely parts of a normal distribution, scaled to unit variance.
LEVELS = np.array([-1.6076, -0.8685, -0.4017, 0.0, 0.4017, 0.8685, 1.6076])
#: Largest bandwidth during an outage, and at most a quarter of the family's level.
OUTAGE_MBPS = 0.1


@dataclass(frozen=True, slots=True)
class Family:
    """Parameters of one family of links; spreads are standard deviations of the natural logarithm."""

    level_mbps: float  # median bandwidth outside outages
    between_spread: float  # of the level from trace to trace
    slow_spread: float  # of the slow state within a trace
    fast_spread: float  # of each sample around its state
    dwell_s: float  # mean time in a slow state
    jump_frac: float  # share of moves that go to any level instead of a neighbour
    outage_frac: float  # share of time
    outage_s: float  # mean length of an outage
    cap_mbps: float  # largest measured value
    step_s: float = 1.0
    rtt_s: tuple[float, float] | None = None  # round trip of the link itself, log-uniform between traces; None: short
    is_shared: bool = True  # bandwidth of a cell, of which a device has a share


@dataclass(frozen=True, slots=True)
class Statistics:
    """Statistics of a family; the generator is fitted to those of measurements."""

    mean_mbps: float
    std_mbps: float
    variation: float  # median over traces of std / mean
    below_half_frac: float  # time below 0.5 Mbit/s
    correlation: tuple[float, ...]  # median over traces of the autocorrelation at CORRELATION_LAGS


#: Lags in steps.
CORRELATION_LAGS = (1, 2, 5, 10, 20)

# Measurements, uplinks unless stated otherwise: nyc_lte_up (direction inferred) Mei et al., PAM 2019; mahimahi_up
# Winstein et al., NSDI 2013; orange4g_up mahimahi pull request 152 (2022); nyc3g_up Abbasloo et al., JSAC 2019;
# vz_mmwave_up Ghoshal et al., 5G-MeMU 2022; us5g_iperf_up Narayanan et al., SIGCOMM 2021; starlink_up Hu et al., CoNEXT
# 2023; perama_wifi_up minarady1/wifi_for_industrial_robotics; and three downlinks as stand-ins: ghent4g van der Hooft
# et al., IEEE Comm. Letters 2016; norway3g Riiser et al., MMSys 2013; oboe Akhtar et al., SIGCOMM 2018.
# Families whose name ends in 100ms have that step. Autocorrelations were computed on about 70 % of each family.
TARGETS: dict[str, Statistics] = {
    "ghent4g": Statistics(30.2, 16.7, 0.43, 0.01, (0.68, 0.53, 0.60, 0.47, 0.33)),
    "mahimahi_up": Statistics(1.63, 3.19, 0.5, 0.12, (0.85, 0.73, 0.56, 0.42, 0.29)),
    "mahimahi_up_100ms": Statistics(2.35, 5.05, 0.61, 0.225, (0.78, 0.80, 0.75, 0.68, 0.61)),
    "norway3g": Statistics(0.99, 0.99, 0.71, 0.34, (0.86, 0.82, 0.75, 0.66, 0.53)),
    "nyc3g_up": Statistics(0.72, 0.45, 0.64, 0.39, (0.77, 0.62, 0.33, 0.28, 0.03)),
    "nyc_lte_up": Statistics(6.55, 5.81, 0.76, 0.11, (0.88, 0.83, 0.73, 0.63, 0.48)),
    "oboe": Statistics(2.71, 1.53, 0.21, 0.04, (0.93, 0.83, 0.54, 0.23, 0.04)),
    "orange4g_up": Statistics(4.95, 6.22, 0.66, 0.08, (0.96, 0.93, 0.88, 0.83, 0.74)),
    "orange4g_up_100ms": Statistics(6.81, 7.98, 1.17, 0.181, (0.94, 0.93, 0.91, 0.89, 0.86)),
    "perama_wifi_up": Statistics(145, 175, 0.21, 0.03, (0.70, 0.48, 0.17, -0.08, -0.14)),
    "starlink_up": Statistics(21.4, 14.3, 0.15, 0, (0.30, -0.04, 0.62, 0.49, 0.26)),
    "us5g_iperf_up": Statistics(50.7, 30.5, 0.39, 0.02, (0.48, 0.56, 0.50, 0.41, 0.34)),
    "vz_mmwave_up": Statistics(40.9, 27.5, 0.23, 0.01, (0.70, 0.41, 0.12, 0.05, -0.01)),
    "vz_mmwave_up_100ms": Statistics(83.4, 45.6, 0.095, 0, (0.54, 0.44, 0.40, 0.32, 0.21)),
}

#: Fitted to TARGETS.
FAMILIES: dict[str, Family] = {
    "ghent4g": Family(27.2, 0.292, 0.371, 0.222, 10.6, 0.231, 0.00834, 2.21, 111, 1),
    "mahimahi_up": Family(1.56, 0.779, 0.466, 0.108, 13, 0.488, 0.0551, 4.25, 29.7, 1),
    "mahimahi_up_100ms": Family(1.71, 1.03, 0.513, 0.0905, 2.91, 0.0688, 0.13, 0.821, 36.8, 0.1),
    "norway3g": Family(0.988, 0.273, 0.704, 0.0909, 70.5, 0.32, 0.194, 10.2, 9, 1),
    "nyc3g_up": Family(0.705, 0.183, 0.619, 0.0897, 12.1, 0.907, 0.0985, 1.85, 1.5, 1),
    "nyc_lte_up": Family(5.26, 0.317, 0.7, 0.116, 34.4, 0.437, 0.0798, 3.7, 41.2, 1),
    "oboe": Family(2.32, 0.525, 0.218, 0.0444, 8.29, 0.593, 0, 1, 13.2, 1),
    "orange4g_up": Family(2.92, 0.589, 0.984, 0.0357, 68.6, 0.2, 0.0298, 5.33, 27.2, 1),
    "orange4g_up_100ms": Family(2.91, 0.481, 1.28, 0.0162, 18.3, 0.104, 0.0485, 0.24, 36.5, 0.1),
    "perama_wifi_up": Family(84.4, 1.08, 0.187, 0.073, 3.31, 0.786, 0.0282, 19, 883, 1),
    "starlink_up": Family(18.5, 0.591, 0.103, 0.113, 18.3, 0.131, 0, 1, 79.2, 1),
    "us5g_iperf_up": Family(43.4, 0.394, 0.317, 0.225, 37.9, 0.587, 0.0194, 2.1, 245, 1),
    "vz_mmwave_up": Family(34.6, 0.562, 0.233, 0.0969, 3.43, 0.54, 0.00929, 6.5, 163, 1),
    "vz_mmwave_up_100ms": Family(73.9, 0.723, 0.0803, 0.0672, 2.1, 0.771, 0, 0.1, 159, 0.1),
}


def _of_50(name: str, rtt_s: tuple[float, float]) -> Family:
    """What each of 50 cameras has of a measured cell. The others come and go, so samples vary more (assumed)."""
    cell = FAMILIES[name]
    return replace(
        cell,
        level_mbps=cell.level_mbps / 50,
        cap_mbps=cell.cap_mbps / 50,
        fast_spread=cell.fast_spread + 0.3,
        rtt_s=rtt_s,
        is_shared=False,
    )


def _narrow(
    level_mbps: float,
    cap_mbps: float,
    rtt_s: tuple[float, float],
    dwell_s: float = 15,
    outage_frac: float = 0.02,
    outage_s: float = 3,
) -> Family:
    """A link of one device, which varies as the measured cellular ones do (assumed)."""
    return Family(level_mbps, 0.4, 0.4, 0.1, dwell_s, 0.3, outage_frac, outage_s, cap_mbps, 1, rtt_s, False)


#: Uplinks of 8 to 250 kbit/s that a device has for itself. Modelled, not measured; docs/links.md has the sources.
#: NB-IoT: 15.6 (single tone) to 62.5 kbit/s (multi-tone) by specification, a tenth of the peak of 250 when it lasts;
#: connected mode, few repetitions. LTE-M, half duplex: 375 kbit/s by specification, 100 as users report. IEEE 802.15.4:
#: TCP carries about 75 of its 250 kbit/s; one to a few hops. Iridium Certus: 22 to 88 kbit/s, and no packet for up to
#: 70 s at a time. The cells are fiftieths of the measured families. Links with round trips of 0.7 s or more are not
#: among them: the device takes so much silence for a link that is down, and answers by itself.
NARROW: dict[str, Family] = {
    "nbiot_up": _narrow(0.026, 0.0625, (0.1, 0.5)),
    "ltem_up": _narrow(0.1, 0.375, (0.05, 0.1)),
    "ieee802154_up": _narrow(0.05, 0.075, (0.02, 0.15), dwell_s=5, outage_s=1),
    "lte_cell_of_50_up": _of_50("nyc_lte_up", (0.03, 0.1)),
    "certus_up": _narrow(0.022, 0.088, (0.3, 0.6), outage_frac=0.05, outage_s=10),
    "3g_cell_of_50_up": _of_50("norway3g", (0.06, 0.3)),
}

#: Only in the test split, because a controller must also serve kinds of links that it was not trained on.
TEST_ONLY = ("starlink_up", "orange4g_up", "certus_up", "3g_cell_of_50_up")
#: Also only in the test split: training families with changed parameters, as factors.
SHIFTED: dict[str, dict[str, float]] = {
    "nyc_lte_up": {"level_mbps": 0.5, "dwell_s": 0.3, "outage_frac": 2.0},
    "us5g_iperf_up": {"level_mbps": 0.3, "slow_spread": 1.5, "dwell_s": 0.5},
    "norway3g": {"level_mbps": 2.0, "fast_spread": 3.0, "outage_s": 0.3},
}
STEPS = 600  # per trace
TRACES = {"train": 8, "test": 4}  # per family


def builtin_traces(split: Split, seed: int = 0) -> TraceBank:
    """Generated traces of all families of a split. Equal seeds give equal traces; the splits share no trace."""
    if split not in TRACES:
        raise unknown_name("trace split", split, tuple(TRACES))
    traces: list[Trace] = []
    for index, (name, family) in enumerate(_families(split).items()):
        rng = np.random.default_rng((seed, tuple(TRACES).index(split), index))
        series = generate(family, TRACES[split], STEPS * family.step_s, rng)
        t_s = np.arange(series.shape[1]) * family.step_s
        rtt_s = _round_trips_s(family, TRACES[split], rng)
        traces += [
            Trace(f"{name}/{split}{number}", t_s, mbps * 1e6, family.step_s, float(rtt_s[number]), family.is_shared)
            for number, mbps in enumerate(series)
        ]
    return TraceBank(traces)


def _round_trips_s(family: Family, traces: int, rng: np.random.Generator) -> Floats:
    """(traces,) round trip of each link."""
    if family.rtt_s is None:
        return np.zeros(traces)
    low, high = family.rtt_s
    return np.asarray(low * (high / low) ** ((rng.permutation(traces) + rng.random(traces)) / traces))


def _families(split: Split) -> dict[str, Family]:
    if split == "train":
        return {name: family for name, family in (FAMILIES | NARROW).items() if name not in TEST_ONLY}
    shifted = {f"{name}_shifted": _shifted(FAMILIES[name], factors) for name, factors in SHIFTED.items()}
    return FAMILIES | shifted | NARROW


def _shifted(family: Family, factors: dict[str, float]) -> Family:
    return replace(family, **{field: getattr(family, field) * factor for field, factor in factors.items()})


def generate(family: Family, traces: int, duration_s: float, rng: np.random.Generator) -> Floats:
    """(traces, steps) bandwidth of a family in Mbit/s."""
    steps = max(1, round(duration_s / family.step_s))
    level = np.log(family.level_mbps) + family.between_spread * _spread_normals(traces, rng)[:, None]
    slow = family.slow_spread * _slow_states(family, traces, steps, rng)
    fast = family.fast_spread * rng.standard_normal((traces, steps))
    mbps = np.minimum(np.exp(level + slow + fast), family.cap_mbps)
    outage = _outages(family, traces, steps, rng)
    return np.where(outage, min(OUTAGE_MBPS, family.level_mbps / 4) * rng.random((traces, steps)), mbps)


def _spread_normals(count: int, rng: np.random.Generator) -> Floats:
    """(count,) normal samples, one from each of `count` equally likely parts, so that few traces cover a family."""
    quantile = (rng.permutation(count) + rng.random(count)) / count
    return np.array([NormalDist().inv_cdf(float(q)) for q in np.clip(quantile, 1e-6, 1 - 1e-6)])


def _slow_states(family: Family, traces: int, steps: int, rng: np.random.Generator) -> Floats:
    """(traces, steps) level of the slow state. Moves are symmetric, so all levels are equally likely."""
    shape = (steps, traces)
    top = len(LEVELS) - 1
    leaves = rng.random(shape) < family.step_s / family.dwell_s
    jumps = rng.random(shape) < family.jump_frac
    neighbour = np.where(rng.random(shape) < 0.5, -1, 1) * (leaves & ~jumps)
    anywhere = rng.integers(len(LEVELS), size=shape)
    state = np.empty(shape, dtype=np.int64)
    state[0] = anywhere[0]
    for step in range(1, steps):
        moved = np.clip(state[step - 1] + neighbour[step], 0, top)
        state[step] = np.where(leaves[step] & jumps[step], anywhere[step], moved)
    return LEVELS[state.T]


def _outages(family: Family, traces: int, steps: int, rng: np.random.Generator) -> Bools:
    """(traces, steps) bool, from a two-state chain with the family's share and mean length of outages."""
    end = min(1.0, family.step_s / family.outage_s)
    begin = min(1.0, end * family.outage_frac / (1.0 - family.outage_frac))
    draw = rng.random((steps, traces))
    out = np.empty((steps, traces), dtype=bool)
    out[0] = draw[0] < family.outage_frac
    for step in range(1, steps):
        out[step] = np.where(out[step - 1], draw[step] >= end, draw[step] < begin)
    return out.T


def statistics(traces: Sequence[Floats]) -> Statistics:
    """Statistics of traces in Mbit/s, each (steps,), all of one family and one step length."""
    pooled = np.concatenate(traces)
    correlation = [np.nanmedian([_autocorrelation(t, lag) for t in traces]) for lag in CORRELATION_LAGS]
    return Statistics(
        float(pooled.mean()),
        float(pooled.std()),
        float(np.median([t.std() / max(t.mean(), 1e-9) for t in traces])),
        float((pooled < 0.5).mean()),
        tuple(float(value) for value in correlation),
    )


def _autocorrelation(series: Floats, lag: int) -> float:
    centred = series - series.mean()
    power = float(centred @ centred)
    return float(centred[:-lag] @ centred[lag:]) / power if len(series) > 2 * lag and power > 0 else np.nan
