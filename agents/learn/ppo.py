"""PPO of stable-baselines3 with the candidate policy, and its hyper-parameters in one record.

Found on the twin of garments (`benchmarks/bench_learning.py` repeats the search's last step). PPO refines what
`agents.learn.warm_start` has fitted, so steps are small, minibatches large, and exploration slight: the policy is
deployed
without any, and one that relies on its sampling noise to try the uplink again forgets to do so when it is gone.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from stable_baselines3 import PPO
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.vec_env.base_vec_env import VecEnv

from agents.learn.policy import GREEDY_WEIGHT, CandidatePolicy
from agents.learn.semi_markov import SemiMarkovBuffer, last_step_of
from controller.errors import UsageError


@dataclass(frozen=True, slots=True)
class PpoConfig:
    """Hyper-parameters of PPO; their meaning is stable-baselines3's."""

    rollout_steps: int = 64  # per environment between two updates
    minibatch: int = 2048
    epochs: int = 4
    learning_rate: float = 1e-3  # falls linearly over all steps, the warm start's included
    gamma: float = 0.98  # per frame
    gae_lambda: float = 0.95
    clip_frac: float = 0.2
    entropy: float = 0.0
    value_weight: float = 0.5
    target_kl: float = 0.02
    max_grad_norm: float = 5.0
    greedy_weight: float = GREEDY_WEIGHT  # logits per tenth of predicted utility at the start

    def __post_init__(self) -> None:
        for name in ("rollout_steps", "minibatch", "epochs", "learning_rate", "value_weight", "max_grad_norm"):
            if not getattr(self, name) > 0:
                raise UsageError(f"PPO {name}: got {getattr(self, name)}; expected more than 0")
        for name in ("gamma", "gae_lambda"):
            if not 0 <= getattr(self, name) <= 1:
                raise UsageError(f"PPO {name}: got {getattr(self, name)}; expected 0 to 1")


def make_ppo(
    env: VecEnv,
    config: PpoConfig,
    seed: int,
    log_dir: Path | None = None,
    *,
    intervals: bool = False,
    **policy: Any,
) -> PPO:
    """A fresh learner on the CPU; ``policy`` goes to CandidatePolicy.

    With ``intervals`` decisions are for different numbers of frames, and time counts in frames.
    """
    return PPO(
        CandidatePolicy,
        env,
        learning_rate=Falling(config.learning_rate),
        n_steps=config.rollout_steps,
        batch_size=config.minibatch,
        n_epochs=config.epochs,
        gamma=config.gamma,
        gae_lambda=config.gae_lambda,
        clip_range=config.clip_frac,
        ent_coef=config.entropy,
        vf_coef=config.value_weight,
        max_grad_norm=config.max_grad_norm,
        target_kl=config.target_kl,
        tensorboard_log=None if log_dir is None else str(log_dir),
        rollout_buffer_class=SemiMarkovBuffer if intervals else None,
        rollout_buffer_kwargs={"last_step": last_step_of(env)} if intervals else None,
        policy_kwargs={"greedy_weight": config.greedy_weight, **policy},
        seed=seed,
        device="cpu",
    )


def whole_rollouts(model: PPO, steps: int) -> int:
    """The smallest number of steps in whole rollouts that is not below ``steps``: PPO makes no others."""
    rollout = model.n_steps * model.n_envs
    return -(-steps // rollout) * rollout


def learn_rollouts(model: PPO, steps: int, callbacks: list[BaseCallback] | None = None) -> None:
    """Make ``steps`` more steps, a number of whole rollouts; the learning rate falls over their updates."""
    if isinstance(model.learning_rate, Falling):
        total = model.num_timesteps + steps
        model.lr_schedule = replace(model.learning_rate, update_frac=model.n_steps * model.n_envs / total)
    model.learn(steps, callbacks, log_interval=1, reset_num_timesteps=False)


@dataclass(frozen=True)
class Falling:
    """A learning rate that falls linearly; a class, so that a saved learner can name it.

    stable-baselines3 asks for the rate of an update after it has counted the update's steps. So the rate of the last
    update would be zero, and a training of one update would learn nothing. ``update_frac``, an update's share of all
    steps, is added again: the first update has the full rate and the last one has ``start * update_frac``.
    """

    start: float
    update_frac: float = 0.0

    def __call__(self, progress_remaining: float) -> float:
        # stable-baselines3 counts below zero when the number of steps is not one of whole rollouts.
        return self.start * (max(progress_remaining, 0.0) + self.update_frac)
