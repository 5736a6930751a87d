"""Fits the trace generator to measured uplinks, and prints the tables of runtime/testbed/markov_traces.py.

    python benchmarks/fit_traces.py DIR     # one folder of traces per family below DIR, about three minutes

Published statistics of whole families (``PUBLISHED``) take precedence over those of the files in DIR, which may be only
a part of the family. Six parameters are searched (Nelder-Mead on simulated statistics, with the same random numbers in
every evaluation); share and length of outages and the largest value are counted.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import astuple
from pathlib import Path

import numpy as np
from scipy.optimize import minimize

from controller.records import Floats
from runtime.testbed.markov_traces import OUTAGE_MBPS, Family, Statistics, generate, statistics
from runtime.traces.load import load_traces

SIMULATED_TRACES = 60
LONGEST_S = 1200.0  # of a simulated trace; the autocorrelation of a short trace is biased, so lengths are alike
EVALUATIONS = 300  # of one search
SEED = 20

#: Mean, standard deviation, median coefficient of variation, time below 0.5 Mbit/s, largest value: of whole families.
PUBLISHED: dict[str, tuple[float, float, float, float, float]] = {
    "nyc_lte_up": (6.55, 5.81, 0.76, 0.11, 41.2),
    "mahimahi_up": (1.63, 3.19, 0.50, 0.12, 29.7),
    "orange4g_up": (4.95, 6.22, 0.66, 0.08, 27.2),
    "nyc3g_up": (0.72, 0.45, 0.64, 0.39, 1.5),
    "vz_mmwave_up": (40.87, 27.50, 0.23, 0.01, 162.6),
    "us5g_iperf_up": (50.70, 30.51, 0.39, 0.02, 245.0),
    "starlink_up": (21.38, 14.34, 0.15, 0.00, 79.2),
    "perama_wifi_up": (144.84, 174.87, 0.21, 0.03, 883.1),
    "ghent4g": (30.24, 16.68, 0.43, 0.01, 111.0),
    "norway3g": (0.99, 0.99, 0.71, 0.34, 9.0),
    "oboe": (2.71, 1.53, 0.21, 0.04, 13.2),
}


def main() -> None:
    """Fit every folder below the given directory and print both tables."""
    targets, families = {}, {}
    for folder in sorted(path for path in Path(sys.argv[1]).iterdir() if path.is_dir()):
        targets[folder.name], families[folder.name] = fit(folder)
        print(folder.name, targets[folder.name], families[folder.name], file=sys.stderr)
    print_table("TARGETS", "Statistics", targets)
    print_table("FAMILIES", "Family", families)


def fit(folder: Path) -> tuple[Statistics, Family]:
    """Target statistics of one family and the parameters that come closest, from three starts."""
    bank = load_traces(folder)
    measured = [trace.uplink_bps / 1e6 for trace in bank.traces]
    step_s = round(bank.traces[0].last_step_s, 3)
    target, cap = _target(folder.name, measured)
    outage_frac, outage_s = _outages(measured, target.below_half_frac, step_s)
    duration_s = min(float(np.median(bank.duration_s)), LONGEST_S)

    def family_at(point: Floats) -> Family:
        level, between, slow, fast, dwell = np.exp(point[:5]).tolist()
        jump = float(1 / (1 + np.exp(-point[5])))
        dwell = max(dwell, step_s)
        return Family(level, between, slow, fast, dwell, jump, outage_frac, outage_s, cap, step_s)

    def loss(point: Floats) -> float:
        rng = np.random.default_rng(SEED)
        traces = generate(family_at(point), SIMULATED_TRACES, duration_s, rng)
        return _distance(statistics(list(traces)), target)

    starts = [
        np.array([*np.log([target.mean_mbps, 0.5, max(target.variation, 0.1), 0.15, dwell * step_s]), 0.0])
        for dwell in (2.0, 8.0, 30.0)
    ]
    best = min((_search(loss, start) for start in starts), key=lambda found: found[1])
    return target, _rounded(family_at(best[0]))


def _search(loss: Callable[[Floats], float], start: Floats) -> tuple[Floats, float]:
    simplex = np.vstack([start, start + 0.7 * np.eye(len(start))])
    found = minimize(loss, start, method="Nelder-Mead", options={"maxfev": EVALUATIONS, "initial_simplex": simplex})
    return found.x, float(found.fun)


def _target(name: str, measured: list[Floats]) -> tuple[Statistics, float]:
    """Published statistics if there are any; the autocorrelation always comes from the files."""
    target = statistics(measured)
    cap = float(max(series.max() for series in measured))
    if name in PUBLISHED:
        mean, std, variation, below, cap = PUBLISHED[name]
        target = Statistics(mean, std, variation, below, target.correlation)
    return target, cap


def _outages(measured: list[Floats], below_half_frac: float, step_s: float) -> tuple[float, float]:
    """Share of time in outages and their mean length.

    The share is that of the files, scaled by how much more or less of the whole family's time is slow.
    """
    dead = [series < OUTAGE_MBPS for series in measured]
    begins = sum(int(d[0]) + int((d[1:] & ~d[:-1]).sum()) for d in dead)
    dead_steps = sum(int(d.sum()) for d in dead)
    if not dead_steps:
        return 0.0, step_s
    slow_steps = sum(int((series < 0.5).sum()) for series in measured)
    return below_half_frac * dead_steps / slow_steps, dead_steps / begins * step_s


def _distance(got: Statistics, target: Statistics) -> float:
    """Sum of squares: relative for bandwidths; ten points of slow time count like 40 %, of correlation like 10 %."""
    relative = [
        np.log(got.mean_mbps / target.mean_mbps),
        np.log(got.std_mbps / target.std_mbps),
        np.log(got.variation / target.variation),
        4 * (got.below_half_frac - target.below_half_frac),
    ]
    correlation = [g - t for g, t in zip(got.correlation, target.correlation, strict=True) if np.isfinite(t)]
    return float(np.square(relative).sum() + np.square(correlation).sum())


def _rounded(family: Family) -> Family:
    return Family(*(float(f"{value:.3g}") for value in astuple(family)))


def print_table(name: str, kind: str, rows: dict[str, Statistics] | dict[str, Family]) -> None:
    """A Python literal, to be pasted into runtime/testbed/markov_traces.py."""
    print(f"{name}: dict[str, {kind}] = {{")
    for family, row in rows.items():
        values = ", ".join(_literal(value) for value in astuple(row))
        print(f'    "{family}": {kind}({values}),')
    print("}")


def _literal(value: float | tuple[float, ...]) -> str:
    if isinstance(value, tuple):
        return "(" + ", ".join(f"{v:.2f}" for v in value) + ")"
    return f"{value:.3g}"


if __name__ == "__main__":
    main()
