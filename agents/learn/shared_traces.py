"""PPO in which episodes of one scenario are each other's baseline.

Most of what an episode earns depends on its scenario (trace, frame rate, slowdown, load), not on its decisions. A
critic cannot know how the trace goes on, so that this noise enters every advantage. The twin can play one scenario
several times with equal luck. So ``siblings`` episodes share a scenario, and the advantage of a decision at frame f is

    sum over g >= f of gamma^(g - f) (u_g - mean of u_g over the siblings)

with u_g the utility of frame g: an input-dependent baseline (Mao et al., ICLR 2019). It is the same for all decisions
that a sibling could take, so it does not bias the gradient, but for the factor 1 - 1/siblings that normalising the
advantages takes out again. On campus it lowers the advantages' standard deviation several times. There is no critic on
top of it.

Rollouts are whole episodes. The rest is stable-baselines3's PPO.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
import torch
from stable_baselines3 import PPO
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.type_aliases import DictRolloutBufferSamples
from stable_baselines3.common.vec_env.base_vec_env import VecEnv
from torch import Tensor

from controller.features.fast import Features
from controller.records import Floats, Ints, SystemState
from envs.twin.record import StepRecord
from envs.twin.twin import Twin
from envs.vec_env import TwinVecEnv


def shared_trace_advantages(utility: Floats, siblings: int, episode: Ints, frame: Ints, gamma: float) -> Floats:
    """(N,) advantages of decisions at ``frame`` (N,) of ``episode`` (N,).

    ``utility``: (E, F) of each frame of each episode; rows of equal ``row // siblings`` play one scenario.
    """
    groups = utility.reshape(-1, siblings, utility.shape[1])
    following, later = np.zeros(len(utility)), np.zeros(utility.shape)
    centred = (groups - groups.mean(axis=1, keepdims=True)).reshape(utility.shape)
    for g in range(utility.shape[1] - 1, -1, -1):
        later[:, g] = following = centred[:, g] + gamma * following
    return np.asarray(later[episode, frame])


class SharedTracePPO(PPO):
    """stable-baselines3's PPO on rollouts of ``episodes`` whole episodes; the environment is a TwinVecEnv."""

    def __init__(self, *arguments: Any, episodes: int, siblings: int, **options: Any) -> None:
        self.episodes, self.siblings = episodes, siblings
        super().__init__(*arguments, **options)

    @property
    def most_steps(self) -> int:
        """Decisions of a rollout in which each covers one frame."""
        assert isinstance(self.env, TwinVecEnv)
        return self.episodes * self.env.twin.range.frames

    def collect_rollouts(self, env: VecEnv, callback: BaseCallback, rollout_buffer: Any, n_rollout_steps: int) -> bool:
        """Play the episodes to their ends; ``n_rollout_steps`` does not matter. False if the callback says stop."""
        assert isinstance(env, TwinVecEnv)
        players = _Players(env, self.episodes, self.siblings)
        features = Features(env.twin.costs, env.twin.range.utility)
        callback.on_rollout_start()
        while players.running:
            context, candidates = features.of(players.state)
            with torch.no_grad():
                obs = {"context": torch.from_numpy(context), "candidates": torch.from_numpy(candidates)}
                distribution = self.policy.get_distribution(obs)
                actions = distribution.get_actions()
                log_prob = distribution.log_prob(actions)
            self.num_timesteps += players.step(Taken(obs["context"], obs["candidates"], actions, log_prob))
            callback.update_locals(locals())
            if not callback.on_step():
                return False
        self.rollout_buffer = players.decisions(self.gamma)  # type: ignore[assignment]  # all that an update reads
        callback.on_rollout_end()
        return True


class Taken(NamedTuple):
    """Decisions; (N, ...) each."""

    context: Tensor
    candidates: Tensor
    actions: Tensor
    log_prob: Tensor


class _Players:
    """Owns the episodes of one rollout: the devices that still play, and all decisions so far."""

    def __init__(self, env: TwinVecEnv, episodes: int, siblings: int) -> None:
        self._env, self._siblings = env, siblings
        drawn = env.twin.draw(episodes // siblings)
        chosen = np.arange(env.twin.batch) < episodes
        env.twin.reset(chosen, [scenario for scenario in drawn for _ in range(siblings)])
        self._twin: Twin
        self.state: SystemState  # what the devices see
        self._twin, self.state = env.twin.fork(np.flatnonzero(chosen))
        env.state = self.state
        self._episode = np.arange(episodes)  # of each device
        self._utility = np.zeros((episodes, env.twin.range.frames))
        self._taken, self._at = list[Taken](), list[tuple[Ints, Ints]]()

    @property
    def running(self) -> bool:
        return len(self._episode) > 0

    def step(self, taken: Taken) -> int:
        """Carry out one decision per device. Returns how many."""
        frame, count = self._twin.frame, len(self._episode)
        state, record = self._twin.step(taken.actions.numpy())
        self._taken.append(taken)
        self._at.append((self._episode, frame))
        self._earn(frame, record)
        if record.done.any():
            going_on = np.flatnonzero(~record.done)
            self._episode = self._episode[going_on]
            if self.running:
                self._twin, state = self._twin.fork(going_on)
        self.state = self._env.state = state
        self._env.record = record
        return count

    def decisions(self, gamma: float) -> DecisionBuffer:
        """All decisions with their advantages."""
        episode, frame = (np.concatenate(column) for column in zip(*self._at, strict=True))
        advantages = shared_trace_advantages(self._utility, self._siblings, episode, frame, gamma)
        return DecisionBuffer(Taken(*map(torch.cat, zip(*self._taken, strict=True))), advantages)

    def _earn(self, frame: Ints, record: StepRecord) -> None:
        """Spread the reward of each decision evenly over its frames."""
        each = record.reward / record.frames
        for place in range(int(record.frames.max())):
            covered = (place < record.frames) & (frame + place < self._utility.shape[1])
            self._utility[self._episode[covered], frame[covered] + place] = each[covered]


class DecisionBuffer:
    """What stable-baselines3's update reads of a rollout buffer; values and returns are zero: there is no critic."""

    def __init__(self, taken: Taken, advantages: Floats) -> None:
        self._taken, self._advantages = taken, torch.from_numpy(advantages.astype(np.float32))
        self.values = self.returns = np.zeros(len(advantages), np.float32)

    def get(self, batch_size: int) -> Iterator[DictRolloutBufferSamples]:
        """Minibatches in a new order."""
        for rows in torch.randperm(len(self._advantages)).split(batch_size):  # type: ignore[no-untyped-call]
            context, candidates, actions, log_prob = (column[rows] for column in self._taken)
            zeros = torch.zeros(len(rows))
            observations = {"context": context, "candidates": candidates}
            yield DictRolloutBufferSamples(observations, actions, zeros, log_prob, self._advantages[rows], zeros)
