"""How is a policy trained? A warm start and PPO on the vectorised twin, or PPO on the live backend; into a run folder.

The twin rewards with expected accuracy (the table's) instead of the 0/1 score of each replayed sample: the same mean
with far less noise. What the policy is worth is always told on replayed scores (`mecpilot evaluate`).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import msgspec
import torch
from stable_baselines3 import PPO
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.logger import configure
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.vec_env import DummyVecEnv, VecEnv

from agents.callbacks import Checkpoints, Described, HeldOut, Told, TwinMetrics
from agents.checkpoint import load_checkpoint
from agents.ppo import PpoConfig, make_ppo
from agents.rollout import make_twin
from agents.run_folder import RunFolder, TrainingConfig
from agents.warm_start import warm_start
from agents.world import World, hold_out, open_world, traces_of
from envs.env import make_env
from envs.vec_env import TwinVecEnv

Progress = Callable[[int], None]
#: Held-out evaluations and checkpoints per training.
_LOOKS = 10
#: Live, one environment plays in real time: short rollouts, and steps too small to unlearn what the twin taught.
_LIVE_ROLLOUT_STEPS = 64
_LIVE_RATE = 2e-4


@dataclass(frozen=True)
class Options:
    """How to run, as opposed to what is trained."""

    profile: Path | None = None
    resume: bool = False  # from the last checkpoint of the folder
    live: bool = False  # on real processes
    progress: Progress = lambda _: None


def train(config: TrainingConfig, folder: RunFolder, options: Options) -> PPO:
    """Train ``config.steps`` more steps and leave checkpoints, logs and held-out figures in the folder."""
    torch.set_num_threads(config.threads)
    if not options.resume:
        folder.start(config)
    bank = traces_of([Path(source) for source in config.traces], "train", config.seed)
    world = open_world(config.workload, bank, "validation", config.scenario, options.profile)
    learn, judge = (world.on(traces) for traces in hold_out(bank))
    environment = _live(learn, config, options) if options.live else _twin(learn, config)
    try:
        return _learn(config, folder, options, environment, learn, judge)
    finally:
        environment.close()


def _learn(
    config: TrainingConfig, folder: RunFolder, options: Options, environment: VecEnv, learn: World, judge: World
) -> PPO:
    intervals = learn.costs.longest_interval > 1
    model = make_ppo(environment, _ppo(config, options), config.seed, intervals=intervals)
    if options.resume:
        load_checkpoint(model, folder.latest_checkpoint())
        steps = config.steps
    else:
        warm_start(model, [learn], config.warm_start, config.steps, options.progress)
        steps = max(config.steps - model.num_timesteps, 0)
    model.set_logger(configure(str(folder.tensorboard), ["tensorboard"]))
    every = max(steps // _LOOKS, 1)
    callbacks: list[BaseCallback] = [
        Told(options.progress),
        Described(msgspec.json.format(msgspec.json.encode(folder.description())).decode()),
        HeldOut(judge, every, folder),
        Checkpoints(folder, every),
    ]
    if isinstance(environment, TwinVecEnv):
        callbacks.append(TwinMetrics(environment))
    model.learn(steps, callbacks, log_interval=1, reset_num_timesteps=False)
    return model


def _ppo(config: TrainingConfig, options: Options) -> PpoConfig:
    if not options.live:
        return config.ppo
    return replace(
        config.ppo, rollout_steps=_LIVE_ROLLOUT_STEPS, minibatch=_LIVE_ROLLOUT_STEPS, learning_rate=_LIVE_RATE
    )


def _twin(world: World, config: TrainingConfig) -> TwinVecEnv:
    return TwinVecEnv(make_twin(world, config.environments, config.seed, reward="expected"))


def _live(world: World, config: TrainingConfig, options: Options) -> VecEnv:
    environment = make_env(config.workload, "live", world.range, world.bank, seed=config.seed, profile=options.profile)
    return DummyVecEnv([lambda: Monitor(environment)])
