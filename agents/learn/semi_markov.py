"""Discounts returns per frame rather than per decision, because a decision may cover several frames.

A decision with a frame stride of 5 earns the utility of five frames in one step. If each step were discounted by gamma,
that utility would arrive five times as early, and long strides would always win. (Subtracting a running mean of the
utility per frame corrects this on average, but not in a scenario that is easier or harder than the mean.) So time
counts in frames (a semi-Markov decision process; Sutton, Precup and Singh, 1999): with m frames from this decision to
the next, skipped and dropped ones included,

    return = u_0 + gamma u_1 + ... + gamma^(m-1) u_(m-1) + gamma^m * (return from the next decision on)

Each of the m frames is assumed to earn their mean. A constant utility u per frame then has the return u / (1 - gamma)
for every stride. Reported utilities are undiscounted means over frames.
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
    """Utility (B,) of ``frames`` (B,) frames, spread evenly over them and discounted to the first."""
    if gamma == 1:
        return utility
    return np.asarray(utility * (1 - gamma**frames) / ((1 - gamma) * frames))


def last_step_of(env: VecEnv) -> LastStep:
    """A function that returns utility and frames of the environment's last step."""
    if isinstance(env, DummyVecEnv):  # live
        return lambda: (env.buf_rews.copy(), np.array([max(len(info["outcomes"]), 1) for info in env.buf_infos]))
    twin = cast(TwinVecEnv, env)
    return lambda: (twin.record.reward, twin.record.frames)


class SemiMarkovBuffer(DictRolloutBuffer):
    """stable-baselines3's rollout buffer with a separate discount for each step. Owns these discounts."""

    def __init__(self, *arguments: Any, last_step: LastStep, **options: Any) -> None:
        self._last_step = last_step
        super().__init__(*arguments, **options)

    def reset(self) -> None:
        super().reset()
        self.discounts = np.zeros((self.buffer_size, self.n_envs), np.float32)

    def add(self, obs: Any, action: Any, reward: np.ndarray, *rest: Any) -> None:
        """Store a step. Where an episode was truncated, ``reward`` contains gamma times the value of the next state,
        which is discounted per frame too."""
        utility, frames = self._last_step()
        discount = self.gamma**frames
        next_value = (reward - utility.astype(np.float32)) / self.gamma if self.gamma else np.zeros_like(reward)
        self.discounts[self.pos] = discount
        super().add(obs, action, discounted(utility, frames, self.gamma) + discount * next_value, *rest)

    def compute_returns_and_advantage(self, last_values: torch.Tensor, dones: np.ndarray) -> None:
        """Generalised advantage estimation, each step with its own discount."""
        next_values = last_values.clone().cpu().numpy().flatten()
        not_done, advantage = 1.0 - dones.astype(np.float32), np.zeros(self.n_envs, np.float32)
        for step in range(self.buffer_size - 1, -1, -1):
            discount = self.discounts[step] * not_done
            delta = self.rewards[step] + discount * next_values - self.values[step]
            advantage = delta + self.gae_lambda * discount * advantage
            self.advantages[step] = advantage
            next_values, not_done = self.values[step], 1.0 - self.episode_starts[step]
        self.returns = self.advantages + self.values
