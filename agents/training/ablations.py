"""A training without one of its parts: shows what each part of the learning is worth, and what splits are worth.

``python -m benchmarks.bench_ablation`` makes the table.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from agents.learn.config import WITHOUT_WARM_START
from agents.runs.run_folder import TrainingConfig
from controller.errors import unknown_name

#: Not a part of the learning, but of what is learned.
NO_SPLIT = "no-split"


def _no_branches(config: TrainingConfig) -> TrainingConfig:
    """Labels are the penalised utility of the next frame alone."""
    warm = config.warm_start
    rounds = warm.all_rounds
    return replace(config, warm_start=replace(warm, rounds=rounds, branches=replace(warm.branches, rounds=0)))


def _no_warm_start(config: TrainingConfig) -> TrainingConfig:
    """PPO alone, from the rule ``expected-utility``."""
    return replace(config, warm_start=replace(config.warm_start, steps_frac=0.0), ppo=WITHOUT_WARM_START)


def _no_ppo(config: TrainingConfig) -> TrainingConfig:
    """All steps are the warm start's."""
    return replace(config, warm_start=replace(config.warm_start, steps_frac=1.0))


def _imitation_only(config: TrainingConfig) -> TrainingConfig:
    """All labels are the beam search's, which knows the future, in the states that the policy visits."""
    warm = config.warm_start
    expert = replace(warm.branches, rounds=warm.all_rounds, expert_frac=1.0)
    return replace(config, warm_start=replace(warm, steps_frac=1.0, rounds=0, branches=expert))


def _no_split(config: TrainingConfig) -> TrainingConfig:
    """The device computes a frame alone or sends its image; the candidates are chosen anew from such decisions."""
    return replace(config, without="split")


ABLATIONS: dict[str, Callable[[TrainingConfig], TrainingConfig]] = {
    "no-branches": _no_branches,
    "no-warm-start": _no_warm_start,
    "no-ppo": _no_ppo,
    "imitation-only": _imitation_only,
    NO_SPLIT: _no_split,
}


def ablated(config: TrainingConfig, name: str) -> TrainingConfig:
    """The training without the named part. UsageError for an unknown name."""
    if name not in ABLATIONS:
        raise unknown_name("ablation", name, tuple(ABLATIONS))
    return ABLATIONS[name](config)
