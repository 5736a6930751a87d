"""What it is worth to a policy to see what the parts know of the scene: two trainings, one of which does not see it.

``python -m benchmarks.bench_scene [--workload campus] [--filter auto] [--forecast] [--steps 100000] [--episodes 256]``
trains two policies with the same seed in the twin. For the second one motion, confidence, reused share and tracked
speed are never known. Both play the same held-out training traces with the samples of the validation split, each as it
was trained. The interval is that of the mean over episodes, by bootstrap. A filter must be on: without one, part of a
training is compiled and sees them all the same.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from pathlib import Path
from unittest import mock

import numpy as np

from agents.compare.rollout import play, scenarios_on
from agents.compare.traces import hold_out
from agents.runs.checkpoint import load_actor
from agents.runs.run_folder import RunFolder, TrainingConfig
from agents.training.training import Options, setup_of, train
from controller.controllers.registry import make_controller
from controller.errors import MecpilotError
from controller.metrics import overall
from controller.records import Floats, SystemState
from envs.setup import Setup, traces_of
from envs.techniques import Techniques
from envs.twin.twin import Twin
from runtime.bundles.bundle import open_bundle
from runtime.config.rules import check_filter
from runtime.config.sections.shortcuts import FilterSection

#: Scenarios of no training.
_SEED = 31_000
SHIPPED = Path("shipped")


def blind() -> AbstractContextManager[object]:
    """As long as it lasts, no twin shows what the parts know of the scene."""
    seeing = Twin._state

    def state(twin: Twin, *seen: object) -> SystemState:
        shown = seeing(twin, *seen)  # type: ignore[arg-type]
        return replace(shown, motion=None, confidence=None, reused_frac=None, tracked_speed=None)

    return mock.patch.object(Twin, "_state", state)


def utilities(setup: Setup, folder: RunFolder, episodes: int) -> tuple[Floats, dict[str, float]]:
    """(episodes,) utility per frame of a run's policy on each episode, and its figures."""
    controller = make_controller(
        "ppo", setup.costs, setup.range.utility, policy=load_actor(folder.exported_checkpoint()), batch=episodes
    )
    frames = play(setup, controller, scenarios_on(setup, episodes, _SEED)).frames
    count = np.bincount(frames.episode, minlength=episodes)
    return np.bincount(frames.episode, frames.utility, episodes) / count, overall(frames)


def interval(difference: Floats) -> tuple[float, float]:
    """95 % interval of the mean."""
    draws = np.random.default_rng(0).integers(0, len(difference), (2000, len(difference)))
    low, high = np.percentile(difference[draws].mean(axis=1), [2.5, 97.5])
    return float(low), float(high)


def measure(config: TrainingConfig, episodes: int) -> None:
    setup = setup_of(config, traces_of([], "train", config.seed), SHIPPED)
    _, judge = (setup.on(traces) for traces in hold_out(setup.bank))
    found = {}
    for name, seeing in (("seeing", nullcontext()), ("blind", blind())):
        with tempfile.TemporaryDirectory() as folder, seeing:
            run = RunFolder(Path(folder) / "run")
            train(config, run, Options(SHIPPED))
            found[name], figures = utilities(judge, run, episodes)
        streaming = figures.get("streaming_accuracy", float("nan"))
        print(f"{name:<8} utility {figures['utility']:.4f}  streaming accuracy {streaming:.4f}", flush=True)
    difference = found["seeing"] - found["blind"]
    low, high = interval(difference)
    print(f"seeing less blind {difference.mean():+.4f} [{low:+.4f}, {high:+.4f}], {episodes} episodes")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--workload", default="campus")
    parser.add_argument("--filter", default="auto")
    parser.add_argument("--forecast", action="store_true")
    parser.add_argument("--steps", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--episodes", type=int, default=256)
    options = parser.parse_args()
    try:
        filter_ = FilterSection(mode=options.filter)
        check_filter(filter_)
        if not filter_.is_on:
            parser.error("got --filter off; expected auto or a threshold")
        bundle = open_bundle(options.workload)
        config = TrainingConfig(
            bundle.workload,
            options.steps,
            options.seed,
            bundle="" if bundle.workload == options.workload else options.workload,
            scenario=bundle.default_range,
            techniques=Techniques(forecast=options.forecast, filter=filter_),
        )
        measure(config, options.episodes)
    except MecpilotError as error:
        sys.exit(f"bench_scene: {error}")


if __name__ == "__main__":
    main()
