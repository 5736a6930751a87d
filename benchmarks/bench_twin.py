"""Measures steps per second of the twin: alone, with the policy's features, and as an SB3 environment.

``python -m benchmarks.bench_twin [--json FILE]``. One process, one thread, random decisions on the candidates of
garments, scenarios of the default range on the built-in training traces, resets included. Time is the process's CPU
time, so that other load matters little; on an idle machine it equals real time. The figure is the median over equal
slices of the run, printed with the best slice.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from controller.features.fast import Features
from envs.setup import open_setup
from envs.twin.twin import Twin
from envs.vec_env import TwinVecEnv
from runtime.testbed.markov_traces import builtin_traces

SLICES = 15
#: At 64 environments.
TARGET_STEPS_PER_S = 200_000


def twin_of(batch: int) -> Twin:
    return open_setup("garments", builtin_traces("train"), "validation").twin(batch, seed=1)


def steps_of(batch: int, what: str) -> Callable[[np.ndarray], None]:
    """A function that makes one step of every environment, resets included."""
    twin = twin_of(batch)
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


def steps_per_s(batch: int, what: str, seconds: float) -> tuple[float, float]:
    """Median and best of the slices."""
    step = steps_of(batch, what)
    rng = np.random.default_rng(0)
    rows = rng.integers(0, len(twin_of(1).costs), (64, batch))
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
    print(f"{'environments':>12}  {'what':<24}{'steps/s':>10}{'best slice':>12}")
    names = {"twin": "twin", "features": "twin and features", "sb3": "TwinVecEnv.step"}
    figures = {}
    for batch in (64, 1024):
        for what, name in names.items():
            median, best = steps_per_s(batch, what, options.seconds)
            figures[f"{what}_{batch}"] = {"median": median, "best": best}
            print(f"{batch:>12}  {name:<24}{median:>10,.0f}{best:>12,.0f}", flush=True)
    if options.json:
        options.json.write_text(json.dumps(figures, indent=1))
    for what in ("twin", "features"):
        reached = figures[f"{what}_64"]["median"] >= TARGET_STEPS_PER_S
        print(f"{names[what]}, 64 environments: target {TARGET_STEPS_PER_S:,} {'reached' if reached else 'missed'}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
