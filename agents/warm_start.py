"""From which policy does PPO start? From the best one that decides each frame for itself.

The twin can tell what every candidate would have led to at a decision point, not only the one that was taken. So
before any trial and error the scorer is fitted with full information: it maximises the expected value

    J = E_state [ sum_c softmax(score(state))_c * value_c(state) ]

where ``value_c`` is the utility that candidate c really would have had (the hindsight controller's value, with its
charge for delaying the next frames). Its gradient has no exploration noise at all. What is left to PPO is what a
single frame does not show: the queue, the backlog and the knowledge that a decision leaves to the frames after it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from stable_baselines3 import PPO
from torch import Tensor

from agents.policy import CandidatePolicy
from agents.rollout import make_twin
from agents.world import World
from controller.features import Features, Float32s
from controller.greedy import value
from controller.hindsight import known_outcome
from controller.registry import make_controller

Progress = Callable[[int], None]


@dataclass(frozen=True, slots=True)
class WarmStartConfig:
    """How the scorer and the critic are fitted before PPO."""

    steps_frac: float = 0.3  # of all environment steps of a training; 0 for no warm start
    explore_frac: float = 0.3  # of the frames decided at random, so that all kinds of states are met
    delay_penalty: float = 0.05  # utility per frame interval of delay to the next frames, in ``value_c``
    epochs: int = 12
    minibatch: int = 2048
    learning_rate: float = 5e-3  # at the start; falls linearly to zero
    entropy: float = 3e-4  # keeps the softmax wide enough for PPO to try alternatives


@dataclass(frozen=True)
class Samples:
    """Decision points and what came of them; N = steps x environments, in the order of time."""

    context: Tensor  # (N, D)
    candidates: Tensor  # (N, C, F)
    value: Tensor  # (N, C) utility that each candidate would have had
    gain: Tensor  # (N,) discounted utility that followed


def warm_start(
    model: PPO, world: World, config: WarmStartConfig, steps: int, seed: int, progress: Progress = lambda _: None
) -> None:
    """Fit the actor with full information, then the critic to the returns of the fitted actor's behaviour."""
    policy = model.policy
    assert isinstance(policy, CandidatePolicy)
    rng = np.random.default_rng(seed)
    first = _play(model, world, config, (2 * steps) // 3, config.explore_frac, rng, progress)
    scorer = policy.scorer
    _fit(scorer, _batches(first, config, rng), config, lambda s: _actor_loss(policy, s, config.entropy))
    second = _play(model, world, config, steps - (2 * steps) // 3, 0.0, rng, progress)
    _fit(policy.critic, _batches(second, config, rng), config, lambda s: _critic_loss(policy, s))


def _play(
    model: PPO,
    world: World,
    config: WarmStartConfig,
    steps: int,
    explore_frac: float,
    rng: np.random.Generator,
    progress: Progress,
) -> Samples:
    batch = model.n_envs
    twin = make_twin(world, batch, int(rng.integers(2**31)), reward="expected", oracle=True)
    features, utility = Features(world.costs, world.range.utility), world.range.utility
    policy = model.policy.frozen()  # type: ignore[operator]
    pilot = make_controller("ppo", world.costs, utility, policy=policy, batch=batch)
    state, kept = twin.reset(), []
    for _ in range(max(steps // batch, 1)):
        context, candidates = features.of(state)
        worth = value(world.costs, state, utility, known_outcome(world.costs, state), config.delay_penalty)
        rows = pilot.decide(state)
        rows = np.where(rng.random(batch) < explore_frac, rng.integers(len(world.costs), size=batch), rows)
        state, record = twin.step(rows)
        kept.append((context, candidates, worth.astype(np.float32), record.reward, record.done))
        if record.done.any():
            state = twin.reset(record.done)
        progress(batch)
    return _samples(kept, model.gamma)


def _samples(kept: list[tuple[np.ndarray, ...]], gamma: float) -> Samples:
    context, candidates, worth, reward, done = (np.stack(column) for column in zip(*kept, strict=True))
    gain = np.zeros_like(reward)
    # What follows the last step, and the truncated end of an episode, is taken to be as good as the average.
    following = np.full(reward.shape[1], reward.mean() / (1 - gamma))
    for step in range(len(reward) - 1, -1, -1):
        following = np.where(done[step], reward.mean() / (1 - gamma), following)
        gain[step] = following = reward[step] + gamma * following
    return Samples(_flat(context), _flat(candidates), _flat(worth), _flat(gain.astype(np.float32)))


def _flat(values: Float32s) -> Tensor:
    return torch.from_numpy(values.reshape(-1, *values.shape[2:]))


def _batches(samples: Samples, config: WarmStartConfig, rng: np.random.Generator) -> Callable[[], Iterator[Samples]]:
    def epoch() -> Iterator[Samples]:
        order = torch.from_numpy(rng.permutation(len(samples.context)))
        for rows in order.split(config.minibatch):
            yield Samples(samples.context[rows], samples.candidates[rows], samples.value[rows], samples.gain[rows])

    return epoch


def _actor_loss(policy: CandidatePolicy, samples: Samples, entropy: float) -> Tensor:
    log_share = torch.log_softmax(policy.scorer(samples.context, samples.candidates), dim=1)
    share = log_share.exp()
    regret = samples.value.amax(dim=1, keepdim=True) - samples.value
    return (share * (regret + entropy * log_share)).sum(dim=1).mean()


def _critic_loss(policy: CandidatePolicy, samples: Samples) -> Tensor:
    return (policy.critic(samples.context, samples.candidates)[:, 0] - samples.gain).square().mean()


def _fit(
    module: torch.nn.Module,
    epoch: Callable[[], Iterator[Samples]],
    config: WarmStartConfig,
    loss_of: Callable[[Samples], Tensor],
) -> None:
    optimizer = torch.optim.Adam(module.parameters(), lr=config.learning_rate)
    for number in range(config.epochs):
        for group in optimizer.param_groups:
            group["lr"] = config.learning_rate * (1 - number / config.epochs)
        for samples in epoch():
            optimizer.zero_grad()
            loss_of(samples).backward()
            torch.nn.utils.clip_grad_norm_(module.parameters(), 5.0)
            optimizer.step()
