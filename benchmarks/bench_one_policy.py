"""Compares one policy for both workloads with one policy for each.

``python -m benchmarks.bench_one_policy [--seeds 3] [--steps 300000]`` trains, per seed, a policy on each workload and
one on both together (the same steps per workload, the same network size), and plays all of them on the held-out
built-in traces of both workloads. All are trained by the code of ``mecpilot train``.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from rich.console import Console
from rich.table import Table
from stable_baselines3.common.vec_env.base_vec_env import VecEnv, VecEnvObs, VecEnvStepReturn

from agents.compare.evaluation import Entrants, compare_in_twin
from agents.compare.report import Comparison
from agents.compare.traces import hold_out
from agents.learn.config import PpoConfig, WarmStartConfig
from agents.learn.policy import CandidatePolicy
from agents.learn.ppo import make_ppo
from agents.learn.warm_start import warm_start
from controller.controllers.learned import FrozenPolicy
from controller.metrics import bootstrap
from controller.records import Floats, Ints
from envs.setup import Setup, open_setup, traces_of
from envs.vec_env import TwinVecEnv
from runtime.workloads.registry import WORKLOADS

ENVIRONMENTS = 64  # of each workload


class Steps(NamedTuple):
    """Reward and frames of the last step in every environment of all twins."""

    reward: Floats
    frames: Ints


class Twins(VecEnv):
    """One vectorised environment of several workloads' twins. They must have the same number of candidates."""

    def __init__(self, parts: Sequence[TwinVecEnv]) -> None:
        self.parts = parts
        self.render_mode = None
        super().__init__(sum(part.num_envs for part in parts), parts[0].observation_space, parts[0].action_space)

    @property
    def record(self) -> Steps:
        records = [part.record for part in self.parts]
        return Steps(*(np.concatenate([getattr(record, name) for record in records]) for name in Steps._fields))

    def reset(self) -> VecEnvObs:
        return _together([part.reset() for part in self.parts])

    def step_async(self, actions: np.ndarray) -> None:
        first = 0
        for part in self.parts:
            part.step_async(actions[first : first + part.num_envs])
            first += part.num_envs

    def step_wait(self) -> VecEnvStepReturn:
        observed, reward, done, infos = zip(*(part.step_wait() for part in self.parts), strict=True)
        return _together(observed), np.concatenate(reward), np.concatenate(done), [i for part in infos for i in part]

    def close(self) -> None:
        """Nothing to close."""

    def get_attr(self, attr_name: str, indices: Any = None) -> list[Any]:
        return [getattr(self, attr_name)] * self.num_envs

    def set_attr(self, attr_name: str, value: Any, indices: Any = None) -> None:
        setattr(self, attr_name, value)

    def env_method(self, method_name: str, *args: Any, indices: Any = None, **kwargs: Any) -> list[Any]:
        return [getattr(self, method_name)(*args, **kwargs)] * self.num_envs

    def env_is_wrapped(self, wrapper_class: type[Any], indices: Any = None) -> list[bool]:
        return [False] * self.num_envs


def _together(observations: Sequence[Any]) -> VecEnvObs:
    return {name: np.concatenate([part[name] for part in observations]) for name in observations[0]}


def training_setups() -> dict[str, Setup]:
    """The training setup of every workload, with extra legal decisions so that all have as many candidates."""
    setups = {name: open_setup(name, traces_of([], "train"), "validation") for name in WORKLOADS}
    most = max(len(setup.costs) for setup in setups.values())
    return {name: _widened(setup, most).on(hold_out(setup.bank)[0]) for name, setup in setups.items()}


def _widened(setup: Setup, count: int) -> Setup:
    everything = setup.everything
    chosen = [everything.space.index(decision) for decision in setup.costs.space.decisions]
    others = np.setdiff1d(np.arange(len(everything)), chosen)
    spread = others[np.linspace(0, len(others) - 1, count - len(chosen)).astype(int)]
    return replace(setup, costs=everything.take(np.sort(np.append(chosen, spread))))


def train_on(setups: Sequence[Setup], steps: int, seed: int) -> FrozenPolicy:
    """Train a policy on all setups together, with ``steps`` environment steps on each."""
    parts = [TwinVecEnv(setup.twin(ENVIRONMENTS, seed, reward="expected")) for setup in setups]
    strides = any(setup.costs.longest_stride > 1 for setup in setups)
    model = make_ppo(Twins(parts), PpoConfig(), seed, strides=strides)
    warm_start(model, setups, WarmStartConfig(), steps * len(setups))
    model.learn(max(steps * len(setups) - model.num_timesteps, 0), reset_num_timesteps=False)
    assert isinstance(model.policy, CandidatePolicy)
    return model.policy.frozen()


def show(found: dict[str, dict[str, Comparison]], console: Console) -> dict[str, Any]:
    """Print and return every policy's mean utility on every workload, and its difference to the workload's own."""
    table, report = Table(title="mean utility on held-out traces [95 %]"), dict[str, Any]()
    table.add_column("trained on")
    for workload in WORKLOADS:
        table.add_column(workload, justify="right")
        table.add_column("minus its own", justify="right")
    for name, comparisons in found.items():
        cells = []
        for workload, comparison in comparisons.items():
            utility, own = comparison.utility("ppo"), found[workload][workload].utility("ppo")
            mean, lost = bootstrap(utility), bootstrap(utility - own)
            report[f"{name} on {workload}"] = {"utility": mean.as_json(), "minus_own": lost.as_json()}
            difference = "" if name == workload else f"{lost.mean:+.4f} [{lost.low:+.4f}, {lost.high:+.4f}]"
            cells += [f"{mean.mean:.4f} [{mean.low:.4f}, {mean.high:.4f}]", difference]
        table.add_row(name, *cells)
    console.print(table)
    return report


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=3, help="training seeds")
    parser.add_argument("--steps", type=int, default=300_000, help="of each training, per workload")
    parser.add_argument("--scenarios", type=int, default=5, help="per held-out trace")
    parser.add_argument("--json", type=Path, help="write the figures here")
    options = parser.parse_args()
    torch.set_num_threads(1)
    console = Console(width=136)
    learn = training_setups()
    judge = {name: open_setup(name, traces_of([], "test"), "test") for name in WORKLOADS}
    groups = {name: [setup] for name, setup in learn.items()} | {"both": list(learn.values())}
    found: dict[str, dict[str, Comparison]] = {}
    for name, setups in groups.items():
        begin_s = time.monotonic()
        policies = [train_on(setups, options.steps, seed) for seed in range(options.seeds)]
        console.print(f"{name}: {options.seeds} policies in {time.monotonic() - begin_s:.0f} s")
        entrants = Entrants(("ppo",), policies)
        found[name] = {
            workload: compare_in_twin(setup, entrants, ["built-in"], options.scenarios)
            for workload, setup in judge.items()
        }
    report = show(found, console)
    if options.json:
        options.json.write_text(json.dumps(report, indent=1))


if __name__ == "__main__":
    main()
