"""Discounting by frames rather than decisions, because a decision may cover several frames.

A decision with an interval of 5 collects five frames' utility in one step. If each step were discounted by gamma, it
would bring the same income per frame five times as soon, and long intervals would win whatever they answer. (To
subtract a running mean of the utility per frame mends that on average, but not for a scenario that is easier or harder
than the mean.) So time counts in frames (a semi-Markov decision process; Sutton, Precup and Singh, 1999): with m frames
from this decision to the next, skipped and dropped ones included,

    return = u_0 + gamma u_1 + ... + gamma^(m-1) u_(m-1) + gamma^m * (return from the next decision on)

where each of the m frames is taken to earn the mean of them, so that which one of them earned it does not matter. A
constant utility of u per frame is then worth u / (1 - gamma) at every interval. What is reported counts every frame
alike, undiscounted.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

import numpy as np
import torch
from stable_baselines3.common.buffers import DictRolloutBuffer
from stable_baselines3.common.vec_env import DummyVecEnv
from stable_baselines3.common.vec_env.base_vec_env import VecEnv

from controller.records import Floats, Ints
from envs.vec_env import TwinVecEnv

#: Utility and frames of the last step, (environments,) each.
LastStep = Callable[[], tuple[Floats, Ints]]


def discounted(utility: Floats, frames: Ints, gamma: float) -> Floats:
    """Utility of several frames, spread evenly over them and discounted to their decision."""
    if gamma == 1:
        return utility
    return np.asarray(utility * (1 - gamma**frames) / ((1 - gamma) * frames))


def last_step_of(env: VecEnv) -> LastStep:
    """Utility and frames of the environment's last step, as it counts them."""
    if isinstance(env, DummyVecEnv):  # live
        return lambda: (env.buf_rews.copy(), np.array([max(len(info["outcomes"]), 1) for info in env.buf_infos]))
    twin = cast(TwinVecEnv, env)
    return lambda: (twin.record.reward, twin.record.frames)


class SemiMarkovBuffer(DictRolloutBuffer):
    """stable-baselines3's rollout buffer with a discount of its own for each step. Owns the frames of every step."""

    def __init__(self, *arguments: Any, last_step: LastStep, **options: Any) -> None:
        self._last_step = last_step
        super().__init__(*arguments, **options)

    def reset(self) -> None:
        super().reset()
        self.discounts = np.zeros((self.buffer_size, self.n_envs), np.float32)

    def add(self, obs: Any, action: Any, reward: np.ndarray, *rest: Any) -> None:
        """``reward`` holds gamma times the value of what follows where an episode was cut off; that counts in frames
        as well."""
        utility, frames = self._last_step()
        discount = self.gamma**frames
        beyond = (reward - utility.astype(np.float32)) / self.gamma if self.gamma else np.zeros_like(reward)
        self.discounts[self.pos] = discount
        super().add(obs, action, discounted(utility, frames, self.gamma) + discount * beyond, *rest)

    def compute_returns_and_advantage(self, last_values: torch.Tensor, dones: np.ndarray) -> None:
        """Generalised advantage estimation, each step with the discount of its frames."""
        following = last_values.clone().cpu().numpy().flatten()
        goes_on, advantage = 1.0 - dones.astype(np.float32), np.zeros(self.n_envs, np.float32)
        for step in range(self.buffer_size - 1, -1, -1):
            discount = self.discounts[step] * goes_on
            delta = self.rewards[step] + discount * following - self.values[step]
            advantage = delta + self.gae_lambda * discount * advantage
            self.advantages[step] = advantage
            following, goes_on = self.values[step], 1.0 - self.episode_starts[step]
        self.returns = self.advantages + self.values
