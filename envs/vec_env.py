"""The twin as one vectorised environment of stable-baselines3, without a Python object per row.

Building 64 info dictionaries would take as long as the step itself. So all rows share one empty dictionary, except
where an episode ends, and callbacks read the raw terms of all rows from ``record``.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces
from stable_baselines3.common.vec_env.base_vec_env import VecEnv, VecEnvIndices, VecEnvObs, VecEnvStepReturn

from controller.features.fast import Features
from controller.records import Bools, Ints, SystemState
from envs.env import Observation, observation_space
from envs.twin.record import StepRecord
from envs.twin.twin import Twin


class TwinVecEnv(VecEnv):
    """A twin with automatic resets. Owns the twin and the running return of each row.

    ``state`` is the source of the last observation. ``record`` holds the raw terms of the last step, row by row.
    """

    def __init__(self, twin: Twin) -> None:
        self.render_mode = None
        self.twin = twin
        self._features = Features(twin.costs, twin.range.utility)
        self._actions: Ints = np.zeros(twin.batch, np.int64)
        self._nothing: list[dict[str, Any]] = [{}] * twin.batch
        self._return = np.zeros(twin.batch)
        self._length = np.zeros(twin.batch, np.int64)
        self._began_s = time.perf_counter()
        self.state: SystemState
        self.record: StepRecord
        super().__init__(twin.batch, observation_space(len(twin.costs)), spaces.Discrete(len(twin.costs)))

    def seed(self, seed: int | None = None) -> Sequence[int | None]:
        """Draw all later scenarios from this seed."""
        if seed is not None:
            self.twin.seed(seed)
        return [seed] * self.num_envs

    def reset(self) -> VecEnvObs:
        self._return[:], self._length[:] = 0.0, 0
        self.state = self.twin.reset()
        return self._observation(self.state)

    def step_async(self, actions: np.ndarray) -> None:
        self._actions = actions

    def step_wait(self) -> VecEnvStepReturn:
        self.state, self.record = self.twin.step(self._actions)
        reward, done = self.record.reward, self.record.done
        self._return += reward
        self._length += 1
        infos = self._nothing
        if done.any():
            infos = self._end(done)
            self.state = self.twin.reset(done)
        return self._observation(self.state), reward.astype(np.float32), done, infos

    def close(self) -> None:
        """There is nothing to close."""

    def get_attr(self, attr_name: str, indices: VecEnvIndices = None) -> list[Any]:
        return [getattr(self, attr_name)] * len(self._rows(indices))

    def set_attr(self, attr_name: str, value: Any, indices: VecEnvIndices = None) -> None:
        setattr(self, attr_name, value)

    def env_method(self, method_name: str, *args: Any, indices: VecEnvIndices = None, **kwargs: Any) -> list[Any]:
        return [getattr(self, method_name)(*args, **kwargs)] * len(self._rows(indices))

    def env_is_wrapped(self, wrapper_class: type[gymnasium.Wrapper], indices: VecEnvIndices = None) -> list[bool]:
        return [False] * len(self._rows(indices))

    def _observation(self, state: SystemState) -> Observation:
        context, candidates = self._features.of(state)
        return {"context": context, "candidates": candidates.reshape(len(candidates), -1)}

    def _end(self, done: Bools) -> list[dict[str, Any]]:
        """Infos of a step in which episodes end, with the keys of stable-baselines3."""
        rows = np.flatnonzero(done)
        last = self._observation(self.state)
        infos = self._nothing.copy()
        for row in rows:
            infos[row] = {
                "terminal_observation": {name: values[row] for name, values in last.items()},
                "TimeLimit.truncated": True,
                "episode": {
                    "r": float(self._return[row]),
                    "l": int(self._length[row]),
                    "t": time.perf_counter() - self._began_s,
                },
            }
        self._return[rows], self._length[rows] = 0.0, 0
        return infos

    def _rows(self, indices: VecEnvIndices) -> list[int]:
        return list(self._get_indices(indices))
