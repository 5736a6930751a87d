"""A toy environment with a known optimum: the best row depends on bandwidth and deadline, not on later steps."""

from __future__ import annotations

from typing import Any

import numpy as np
from gymnasium import spaces
from stable_baselines3.common.vec_env.base_vec_env import VecEnv

from controller.costs import CostTable
from controller.features.fast import Features
from controller.predict.latency import predict
from controller.records import NO_PAYLOAD, NO_ROW, UPLINK_HISTORY, Decision, Floats, SystemState
from controller.space import DecisionSpace
from controller.utility import Utility
from envs.env import observation_space

#: Without energy the optimum is simply the most accurate row that is in time.
NO_ENERGY = Utility(energy_weight_per_j=0.0)


def toy_costs() -> CostTable:
    """Six rows: two local exits, and four offloads of growing accuracy, payload and MEC time."""
    rows = [
        ("local", 1, 1, NO_PAYLOAD, 0.60, 0.5e-3, 0, 0.0),
        ("local", 2, 2, NO_PAYLOAD, 0.70, 2.0e-3, 0, 0.0),
        ("small", 0, 0, "u8", 0.78, 0.1e-3, 1_000, 0.5e-3),
        ("small", 1, 0, "u8", 0.84, 0.1e-3, 4_000, 0.5e-3),
        ("large", 0, 0, "u8", 0.90, 0.1e-3, 16_000, 1.0e-3),
        ("large", 1, 0, "u8", 0.95, 0.1e-3, 64_000, 1.0e-3),
    ]
    decisions = tuple(Decision(model, 28, exit_, cut, codec) for model, exit_, cut, codec, *_ in rows)
    numbers = np.array([row[4:] for row in rows])
    space = DecisionSpace(decisions, np.array([1, 2, 3, 3, 3, 3]), np.arange(len(rows)))
    return CostTable(space, numbers[:, 0], numbers[:, 1], numbers[:, 2], 0.0 * numbers[:, 2], numbers[:, 3])


def toy_states(rng: np.random.Generator, batch: int) -> SystemState:
    """Independent states on a link with constant bandwidth."""
    bps = 10 ** rng.uniform(5.0, 8.0, batch)
    zero, one, no_row = np.zeros(batch), np.ones(batch), np.full(batch, NO_ROW)
    return SystemState(
        deadline_s=10 ** rng.uniform(-1.3, -0.5, batch),
        capture_period_s=0.2 * one,
        frame_age_s=zero,
        uplink_bps=np.repeat(bps[:, None], UPLINK_HISTORY, axis=1),
        uplink_sample_bytes=np.full((batch, UPLINK_HISTORY), 1e4),
        uplink_sample_age_s=np.zeros((batch, UPLINK_HISTORY)),
        uplink_sample_count=np.full(batch, UPLINK_HISTORY),
        uplink_age_s=zero,
        uplink_backlog_bytes=zero,
        rtt_s=0.01 * one,
        device_slowdown=20.0 * one,
        queued_frames=np.zeros(batch, np.int64),
        in_flight=np.zeros(batch, np.int64),
        mec_queue_s=zero,
        mec_queue_mean_s=zero,
        mec_slowdown=one,
        mec_age_s=zero,
        replied_row=no_row,
        replied_s=zero,
        waiting_row=no_row,
        waiting_s=zero,
        link_up=np.ones(batch, bool),
        on_time_frac=one,
        fallback_frac=zero,
    )


def rewards(costs: CostTable, state: SystemState) -> Floats:
    """(B, C) reward of each row: its accuracy if it is in time, else 0."""
    total = predict(costs, state, state.uplink_bps[:, :1]).total_s[:, :, 0]
    return np.where(total <= state.deadline_s[:, None], costs.accuracy, 0.0)


class ToyEnv(VecEnv):
    """A contextual bandit in SB3's vectorised form; every step is an episode."""

    def __init__(self, batch: int = 32, seed: int = 0) -> None:
        self.costs = toy_costs()
        self.features = Features(self.costs, NO_ENERGY)
        self._rng = np.random.default_rng(seed)
        self._actions = np.zeros(batch, np.int64)
        super().__init__(batch, observation_space(len(self.costs)), spaces.Discrete(len(self.costs)))

    def _observe(self) -> dict[str, np.ndarray]:
        self.state = toy_states(self._rng, self.num_envs)
        context, candidates = self.features.of(self.state)
        return {"context": context, "candidates": candidates.reshape(len(candidates), -1)}

    def reset(self) -> dict[str, np.ndarray]:
        return self._observe()

    def step_async(self, actions: np.ndarray) -> None:
        self._actions = actions

    def step_wait(self) -> tuple[dict[str, np.ndarray], np.ndarray, np.ndarray, list[dict[str, Any]]]:
        reward = rewards(self.costs, self.state)[np.arange(self.num_envs), self._actions].astype(np.float32)
        observation = self._observe()
        done = np.ones(self.num_envs, bool)
        return observation, reward, done, [{} for _ in range(self.num_envs)]

    def close(self) -> None:
        pass

    def get_attr(self, attr_name: str, indices: Any = None) -> list[Any]:
        return [getattr(self, attr_name, None)] * self.num_envs

    def set_attr(self, attr_name: str, value: Any, indices: Any = None) -> None:
        raise NotImplementedError

    def env_method(self, method_name: str, *args: Any, indices: Any = None, **kwargs: Any) -> list[Any]:
        raise NotImplementedError

    def env_is_wrapped(self, wrapper_class: Any, indices: Any = None) -> list[bool]:
        return [False] * self.num_envs
