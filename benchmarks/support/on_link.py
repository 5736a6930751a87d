"""What benchmarks that play the test frames over one link share: their conditions, and how they run."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path

import torch

from benchmarks.support.ending import exit_code
from benchmarks.support.machine_profile import machine_profile
from benchmarks.support.mec_slowdown import MEC_SLOWDOWN
from benchmarks.support.pinned import episode_of
from controller.scenario import Scenario
from envs.setup import Setup


def scenario_of(setup: Setup, options: argparse.Namespace, slowdown: float) -> Scenario:
    """The conditions of the command line, on a device of the given slowdown."""
    return episode_of(
        setup,
        fps=options.fps,
        deadline_s=options.deadline_ms / 1e3,
        device_slowdown=slowdown,
        mec_slowdown=MEC_SLOWDOWN,
        rtt_s=options.rtt_ms / 1e3,
    )


def run_on_profile(name: str, options: argparse.Namespace, run: Callable[[argparse.Namespace, Path], None]) -> int:
    """Run a benchmark with the profile of the command line, on one thread; returns the exit code of the process."""
    torch.set_num_threads(1)

    def body() -> None:
        with machine_profile(options.workload, options.profile, options.bundle) as profile:
            run(options, profile)

    return exit_code(name, body)
