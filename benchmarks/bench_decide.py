"""Measures the time of one decision (features and policy), and that of stable-baselines3's predict for comparison.

``python -m benchmarks.bench_decide`` prints p50 and p99 in microseconds for all candidates of a workload, for 16 to 128
decisions, of classical controllers, and for ``model.predict`` of an ``MlpPolicy`` with 16 inputs in the same process.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable

import gymnasium
import numpy as np
import torch
from gymnasium import spaces
from stable_baselines3 import PPO

from agents.learn.policy import CandidatePolicy
from controller.controllers.learned import FrozenPolicy
from controller.controllers.registry import make_controller
from controller.costs import CostTable
from controller.features.fast import Features
from controller.records import UPLINK_HISTORY, SystemState
from controller.utility import Utility
from envs.env import observation_space
from runtime.bundles.bundle import open_bundle
from runtime.files.tuning_file import load_tunings
from runtime.profiling.profile import candidates, load_costs

CALLS = 20_000
CLASSICAL = ("greedy", "edgent-dynamic", "oboe", "linucb", "fugu-mpc")
MLP_CALLS = 5_000


class SixteenInputs(gymnasium.Env[np.ndarray, np.int64]):
    """An environment that only provides spaces."""

    observation_space = spaces.Box(-1.0, 1.0, (16,), np.float32)
    action_space = spaces.Discrete(48)


def one_state(rng: np.random.Generator) -> SystemState:
    """A state with a backlog, frames in flight and varying bandwidth."""

    def number(value: float) -> np.ndarray:
        return np.array([value])

    return SystemState(
        deadline_s=number(0.1),
        capture_period_s=number(0.1),
        frame_age_s=number(0.004),
        uplink_bps=rng.uniform(1e5, 5e6, (1, UPLINK_HISTORY)),
        uplink_sample_bytes=rng.uniform(500, 2000, (1, UPLINK_HISTORY)),
        uplink_sample_age_s=0.05 + 0.1 * np.arange(UPLINK_HISTORY)[None],
        uplink_sample_count=np.array([100]),
        uplink_age_s=number(0.05),
        uplink_backlog_bytes=number(700.0),
        rtt_s=number(0.01),
        device_slowdown=number(60.0),
        queued_frames=np.array([1]),
        in_flight=np.array([1]),
        mec_queue_s=number(0.003),
        mec_queue_mean_s=number(0.003),
        mec_slowdown=number(4.0),
        mec_age_s=number(0.1),
        replied_row=np.array([0]),
        replied_s=number(0.05),
        waiting_row=np.array([0]),
        waiting_s=number(0.02),
        link_up=np.array([True]),
        on_time_frac=number(0.95),
        fallback_frac=number(0.05),
        motion=number(0.01),
        confidence=number(0.9),
        reused_frac=number(0.2),
        tracked_speed=number(0.05),
    )


def fresh_policy(count: int) -> FrozenPolicy:
    """An untrained policy: the time does not depend on the weights."""
    return CandidatePolicy(observation_space(count), spaces.Discrete(count), lambda _: 1e-3).frozen()


def timed_us(call: Callable[[], object], calls: int) -> dict[str, float]:
    """Percentiles of single calls, after a warm-up."""
    for _ in range(calls // 10):
        call()
    spent = np.empty(calls)
    for i in range(calls):
        begin = time.perf_counter_ns()
        call()
        spent[i] = time.perf_counter_ns() - begin
    p50, p99 = np.percentile(spent, [50, 99]) / 1e3
    return {"p50_us": float(p50), "p99_us": float(p99)}


def time_decision(costs: CostTable) -> dict[str, float]:
    """Features and policy over all rows of ``costs``."""
    features, policy = Features(costs, Utility()), fresh_policy(len(costs))
    state = one_state(np.random.default_rng(0))
    return timed_us(lambda: policy.decide(*features.of(state)), CALLS)


def time_controller(name: str, costs: CostTable, workload: str) -> dict[str, float]:
    """One frame after another, each with a new uplink sample and the reply to the last request."""
    controller = make_controller(name, costs, Utility(), load_tunings(workload).get(name))
    state = one_state(np.random.default_rng(0))

    def decide() -> None:
        state.uplink_sample_count[0] += 1
        state.mec_age_s[0] = state.uplink_age_s[0]
        state.replied_row[0] = controller.decide(state)[0]

    return timed_us(decide, CALLS)


def time_mlp() -> dict[str, float]:
    model = PPO("MlpPolicy", SixteenInputs(), device="cpu")
    observation = np.zeros(16, np.float32)
    return timed_us(lambda: model.predict(observation, deterministic=True), MLP_CALLS)


def measure(workload: str) -> dict[str, dict[str, float]]:
    bundle = open_bundle(workload)
    costs = load_costs(bundle)
    chosen = candidates(costs, bundle.default_range)
    figures = {f"{workload}, its {len(chosen)} candidates": time_decision(chosen)}
    for count in (16, 48, 128):
        if count <= len(costs):
            figures[f"{count} candidates"] = time_decision(costs.take(np.arange(count)))
    for name in CLASSICAL:
        figures[name] = time_controller(name, chosen, workload)
    return figures | {"SB3 MlpPolicy, 16 inputs": time_mlp()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--workload", default="garments")
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    figures = measure(arguments.workload)
    if arguments.json:
        json.dump(figures, sys.stdout, indent=1)
        return
    for name, figure in figures.items():
        print(f"{name:<32} p50 {figure['p50_us']:7.1f} us   p99 {figure['p99_us']:7.1f} us")


if __name__ == "__main__":
    main()
