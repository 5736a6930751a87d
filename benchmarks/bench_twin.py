"""Measures steps per second of the twin: alone, with the policy's features, and as an SB3 environment.

``python -m benchmarks.bench_twin [--json FILE]``. One process, one thread, random decisions on the candidates of a
workload (18 of garments, 41 of campus), scenarios of its default range on the built-in training traces, resets included
and compilation excluded. Time is the process's CPU time, so that other load matters little; on an idle machine it
equals real time. The figure is the median over equal slices of the run, printed with the best slice.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable
from itertools import product
from pathlib import Path

import numpy as np

from controller.features.fast import Features
from envs.setup import open_setup
from envs.twin.twin import Twin
from envs.vec_env import TwinVecEnv
from runtime.testbed.markov_traces import builtin_traces

SLICES = 15
#: Of what is measured, in the best of the batches: on garments alone, and on campus with the features.
TARGET_STEPS_PER_S = {("garments", "twin"): 3_000_000, ("campus", "features"): 600_000}
BATCHES = (64, 1024)


def twin_of(batch: int, workload: str) -> Twin:
    return open_setup(workload, builtin_traces("train"), "validation").twin(batch, seed=1)


def steps_of(twin: Twin, what: str) -> Callable[[np.ndarray], None]:
    """A function that makes one step of every environment, resets included."""
    if what == "sb3":
        vec = TwinVecEnv(twin)
        vec.reset()
        return lambda rows: vec.step(rows)  # type: ignore[return-value]
    features = Features(twin.costs, twin.range.utility)
    state = twin.reset()

    def step(rows: np.ndarray) -> None:
        nonlocal state
        state, record = twin.step(rows)
        if record.done.any():
            state = twin.reset(record.done)
        if what == "features":
            features.of(state)

    return step


def steps_per_s(workload: str, batch: int, what: str, seconds: float) -> tuple[float, float]:
    """Median and best of the slices."""
    twin = twin_of(batch, workload)
    step = steps_of(twin, what)
    rng = np.random.default_rng(0)
    rows = rng.integers(0, len(twin.costs), (64, batch))
    for i in range(200):  # until episodes end at different times
        step(rows[i % 64])
    rates = []
    for _ in range(SLICES):
        count, began, until = 0, time.process_time(), time.process_time() + seconds / SLICES
        while (now := time.process_time()) < until:
            step(rows[count % 64])
            count += 1
        rates.append(count * batch / (now - began))
    return float(np.median(rates)), max(rates)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=5.0, help="for each figure")
    parser.add_argument("--json", type=Path, help="write the figures here")
    options = parser.parse_args()
    print(f"{'workload':<10}{'environments':>12}  {'what':<24}{'steps/s':>10}{'best slice':>12}")
    names = {"twin": "twin", "features": "twin and features", "sb3": "TwinVecEnv.step"}
    figures = {}
    for workload, batch, what in product(("garments", "campus"), BATCHES, names):
        median, best = steps_per_s(workload, batch, what, options.seconds)
        figures[f"{workload}_{what}_{batch}"] = {"median": median, "best": best}
        print(f"{workload:<10}{batch:>12}  {names[what]:<24}{median:>10,.0f}{best:>12,.0f}", flush=True)
    if options.json:
        options.json.write_text(json.dumps(figures, indent=1))
    for (workload, what), target in TARGET_STEPS_PER_S.items():
        reached = max(figures[f"{workload}_{what}_{batch}"]["median"] for batch in BATCHES) >= target
        print(f"{names[what]} of {workload}: target {target:,} {'reached' if reached else 'missed'}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
