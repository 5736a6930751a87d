"""Configures stable-baselines3's PPO with the candidate policy; all hyperparameters are in
``agents.learn.config.PpoConfig``.

The values were found on the twin of garments (``benchmarks/bench_learning.py`` repeats the last step of the search).
In the twin, episodes of one scenario are each other's baseline (``agents.learn.shared_traces``); there is no critic
then. PPO refines the policy that ``agents.learn.warm_start`` has fitted, so steps are small; ``WITHOUT_WARM_START`` has
the values for a policy that PPO alone trains. The policy is deployed without exploration: one that needs its sampling
noise to try the uplink again would stop trying after deployment.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from stable_baselines3 import PPO
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.vec_env.base_vec_env import VecEnv

from agents.learn.config import PpoConfig
from agents.learn.policy import CandidatePolicy
from agents.learn.semi_markov import SemiMarkovBuffer, last_step_of
from agents.learn.shared_traces import SharedTracePPO
from envs.vec_env import TwinVecEnv


def make_ppo(
    env: VecEnv,
    config: PpoConfig,
    seed: int,
    log_dir: Path | None = None,
    *,
    strides: bool = False,
    **policy: Any,
) -> PPO:
    """A new learner on the CPU; ``policy``: further options of CandidatePolicy.

    ``strides``: decisions cover different numbers of frames, so returns are discounted per frame. Scenarios are shared
    between siblings if ``env`` is a TwinVecEnv with room for them.
    """
    episodes = min(config.episodes, env.num_envs) // config.siblings * config.siblings
    shares = isinstance(env, TwinVecEnv) and config.siblings > 1 and episodes > 0
    learner = partial(SharedTracePPO, episodes=episodes, siblings=config.siblings) if shares else PPO
    return learner(
        CandidatePolicy,
        env,
        learning_rate=LinearDecay(config.learning_rate),
        n_steps=config.rollout_steps,
        batch_size=config.minibatch,
        n_epochs=config.epochs,
        gamma=config.gamma,
        gae_lambda=config.gae_lambda,
        clip_range=config.clip_frac,
        ent_coef=config.entropy,
        vf_coef=0.0 if shares else config.value_weight,  # the critic stays what the warm start fitted
        max_grad_norm=config.max_grad_norm,
        target_kl=config.target_kl,
        tensorboard_log=None if log_dir is None else str(log_dir),
        rollout_buffer_class=SemiMarkovBuffer if strides else None,
        rollout_buffer_kwargs={"last_step": last_step_of(env)} if strides else None,
        policy_kwargs={"greedy_weight": config.greedy_weight, **policy},
        seed=seed,
        device="cpu",
    )


def whole_rollouts(model: PPO, steps: int) -> int:
    """``steps``, rounded up to whole rollouts: PPO cannot stop within one.

    Rollouts of whole episodes have no fixed length: PPO then stops after the one that reaches ``steps``.
    """
    if isinstance(model, SharedTracePPO):
        return steps
    rollout = model.n_steps * model.n_envs
    return -(-steps // rollout) * rollout


def learn_rollouts(model: PPO, steps: int, callbacks: list[BaseCallback] | None = None) -> None:
    """Train for ``steps`` more steps (whole rollouts), with the learning rate decaying over their updates."""
    if isinstance(model.learning_rate, LinearDecay):
        total = model.num_timesteps + steps
        rollout = model.most_steps if isinstance(model, SharedTracePPO) else model.n_steps * model.n_envs
        model.lr_schedule = replace(model.learning_rate, update_frac=min(rollout / total, 1.0))
    model.learn(steps, callbacks, log_interval=1, reset_num_timesteps=False)


@dataclass(frozen=True)
class LinearDecay:
    """A linearly decaying learning rate; a class rather than a closure, so that a saved learner can name it.

    stable-baselines3 asks for the rate of an update after it has counted the steps of that update. The last rate would
    be zero, and a training with one update would learn nothing. So ``update_frac``, the share of one update in all
    steps, is added: the first update has the full rate and the last one has ``start * update_frac``.
    """

    start: float
    update_frac: float = 0.0

    def __call__(self, progress_remaining: float) -> float:
        # stable-baselines3 counts below zero when the number of steps is not one of whole rollouts.
        return self.start * (max(progress_remaining, 0.0) + self.update_frac)
