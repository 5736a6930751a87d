"""Callbacks of PPO: log metrics, act at intervals (evaluate, write checkpoints), report progress.

``agents.training.curves`` explains each logged figure.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable

from stable_baselines3.common.callbacks import BaseCallback

from agents.learn.terms import Terms
from envs.vec_env import TwinVecEnv


class TwinMetrics(BaseCallback):
    """Sums the raw terms of every step of the twin and logs their means before each update."""

    def __init__(self, environment: TwinVecEnv) -> None:
        super().__init__()
        self._environment = environment
        self._terms = Terms(environment.twin.costs.space.decisions)

    def _on_rollout_start(self) -> None:
        self._interval_s = self._environment.state.capture_period_s

    def _on_step(self) -> bool:
        self._terms.add(self._environment.record, self._environment.twin.range.utility, self._interval_s)
        self._interval_s = self._environment.state.capture_period_s
        return True

    def _on_rollout_end(self) -> None:
        for tag, value in self._terms.scalars().items():
            self.logger.record(tag, value)
        self._terms.clear()
        # stable-baselines3 logs the mean return of recent episodes. All episodes begin together and short ones end
        # first, so this mean would rise and fall without any learning.
        if self.model.ep_info_buffer is not None:
            self.model.ep_info_buffer.clear()


class Every(BaseCallback):
    """Calls ``action`` every ``steps`` steps or ``seconds`` seconds, before the next rollout."""

    def __init__(self, action: Callable[[], None], steps: float = math.inf, seconds: float = math.inf) -> None:
        super().__init__()
        self._action, self._steps, self._seconds = action, steps, seconds

    def _on_training_start(self) -> None:
        self._last_steps, self._last_s = self.num_timesteps, time.monotonic()

    def _on_rollout_start(self) -> None:
        steps, seconds = self.num_timesteps - self._last_steps, time.monotonic() - self._last_s
        if steps >= self._steps or seconds >= self._seconds:
            self._on_training_start()
            self._action()

    def _on_step(self) -> bool:
        return True


class ProgressCallback(BaseCallback):
    """Calls a function after every step, which may raise to stop; logs the figures of each update at its own step."""

    def __init__(self, report: Callable[[], None]) -> None:
        super().__init__()
        self._report = report

    def _on_rollout_start(self) -> None:
        self.logger.dump(self.num_timesteps)  # otherwise they would be logged with the next rollout

    def _on_step(self) -> bool:
        self._report()
        return True
