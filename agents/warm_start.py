"""From which policy does PPO start? From one fitted with full information, in the states it leads to itself.

The twin can tell what every candidate would have led to at a decision point, not only the one that was taken. So
before any trial and error the scorer is fitted to maximise

    J = E_state [ sum_c softmax(score(state))_c * worth_c(state) ]

where ``worth_c`` is the utility that candidate c really would have had. Its gradient has no exploration noise at all.
What a frame does to the frames after it is charged by three terms: delay of the device, a link that stays occupied,
and a bonus for sending when nothing was sent for long, because bandwidth is only seen by sending.

It goes in rounds: the policy of one round decides (without exploration, as it will be deployed) which states the next
is fitted on. At the end the critic is fitted to the returns of that behaviour, and PPO takes over.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from stable_baselines3 import PPO
from torch import Tensor

from agents.policy import CandidatePolicy
from agents.rollout import make_twin
from agents.semi_markov import discounted
from agents.world import World
from controller.costs import CostTable
from controller.errors import UsageError
from controller.features import Features
from controller.hindsight import known_outcome
from controller.outlook import expected_streaming, expected_utility
from controller.records import Floats, SystemState
from controller.utility import Utility
from envs.twin import Twin

Progress = Callable[[int], None]


@dataclass(frozen=True, slots=True)
class WarmStartConfig:
    """How the scorer and the critic are fitted before PPO."""

    steps_frac: float = 0.85  # of all environment steps of a training; 0 for no warm start
    rounds: int = 6
    kept_rounds: int = 5  # the newest, that each fit uses: the first ones met the states of a worse policy
    device_penalty: float = 0.4  # utility per frame interval by which the device is late for the next frame
    link_penalty: float = 0.05  # the same for the link; it costs the next frames their offload, not their answer
    most_link_intervals: float = 10.0  # that are charged: after a failed transfer the device decides otherwise
    #: What streaming accuracy weighs where samples are a stream: latency within the deadline costs nothing in utility,
    #: but an answer that comes later is older when it is looked at.
    streaming_weight: float = 0.5
    knowledge_bonus: float = 0.1  # utility of sending ``knowledge_age_s`` after the last sample, or later
    knowledge_age_s: float = 6.0
    epochs: int = 6  # per round
    minibatch: int = 1024
    learning_rate: float = 5e-3  # at the start of each round; falls linearly to zero
    entropy: float = 3e-4  # keeps the softmax wide enough for PPO to try alternatives

    def __post_init__(self) -> None:
        if not 0 <= self.steps_frac < 1:
            raise UsageError(f"warm start steps_frac: got {self.steps_frac}; expected 0 or more, below 1")
        for name in ("rounds", "kept_rounds", "epochs", "minibatch", "knowledge_age_s", "learning_rate"):
            if not getattr(self, name) > 0:
                raise UsageError(f"warm start {name}: got {getattr(self, name)}; expected more than 0")


@dataclass(frozen=True)
class Samples:
    """Decision points of one round, in the order of time, and what came of them; N = steps x environments."""

    context: Tensor  # (N, D)
    candidates: Tensor  # (N, C, F)
    worth: Tensor  # (N, C) of each candidate
    gain: Tensor  # (N,) discounted utility that followed

    def __len__(self) -> int:
        return len(self.gain)

    def at(self, rows: Tensor) -> Samples:
        return Samples(self.context[rows], self.candidates[rows], self.worth[rows], self.gain[rows])


def warm_start(
    model: PPO, world: World, config: WarmStartConfig, steps: int, progress: Progress = lambda _: None
) -> None:
    """Fit the actor, in rounds, and the critic with their share of ``steps``; the model counts what was used.

    ``progress`` is told the steps done so far. A share too small for one step per round means no warm start.
    """
    policy, seed = model.policy, model.seed or 0
    assert isinstance(policy, CandidatePolicy)
    length = int(config.steps_frac * steps) // (config.rounds * model.n_envs)
    if length == 0:
        return
    twin = make_twin(world, model.n_envs, seed, reward="expected", oracle=True)
    shuffle = torch.Generator().manual_seed(seed)
    state, kept = twin.reset(), list[Samples]()
    for _ in range(config.rounds):
        state, samples = _play(policy, twin, state, config, length, model, progress)
        kept = [*kept, samples][-config.kept_rounds :]
        together = _joined(kept)
        _fit(policy.scorer, together, config, shuffle, lambda s: _actor_loss(policy, s, config.entropy))
    _fit(policy.critic, together, config, shuffle, lambda s: _critic_loss(policy, s))


def worth(costs: CostTable, state: SystemState, utility: Utility, config: WarmStartConfig) -> Floats:
    """(B, C) true utility of each candidate, less what it costs the next frames, plus what it lets them know.

    All of it per frame that the candidate answers.
    """
    known = known_outcome(costs, state)
    interval = state.frame_interval_s[:, None]
    device = np.maximum((state.frame_age_s[:, None] + known.head_s) / interval - costs.interval, 0.0)
    link = np.clip(known.link_s / interval - costs.interval, 0.0, config.most_link_intervals)
    unknown = np.minimum(state.uplink_age_s / config.knowledge_age_s, 1.0)[:, None] * ~costs.space.device_only
    own = expected_utility(costs, state, utility, known)
    charge = config.device_penalty * device + config.link_penalty * link
    if costs.lagged_accuracy is not None:
        own = own + config.streaming_weight * expected_streaming(costs, state, known)
    return np.asarray(own + (config.knowledge_bonus * unknown - charge) / costs.interval)


def _play(
    policy: CandidatePolicy,
    twin: Twin,
    state: SystemState,
    config: WarmStartConfig,
    length: int,
    model: PPO,
    progress: Progress,
) -> tuple[SystemState, Samples]:
    features, frozen, kept = Features(twin.costs, twin.range.utility), policy.frozen(), []
    for _ in range(length):
        context, candidates = features.of(state)
        value = worth(twin.costs, state, twin.range.utility, config).astype(np.float32)
        state, record = twin.step(frozen.decide(context, candidates))
        frames = record.frames if twin.costs.longest_interval > 1 else np.ones_like(record.frames)
        kept.append((context, candidates, value, record.reward, frames, record.done))
        if record.done.any():
            state = twin.reset(record.done)
        model.num_timesteps += twin.batch
        progress(model.num_timesteps)
    context, candidates, value, reward, frames, done = (np.stack(column) for column in zip(*kept, strict=True))
    columns = (context, candidates, value, _gains(reward, frames, done, model.gamma).astype(np.float32))
    return state, Samples(*(torch.from_numpy(column.reshape(-1, *column.shape[2:])) for column in columns))


def _gains(reward: np.ndarray, frames: np.ndarray, done: np.ndarray, gamma: float) -> np.ndarray:
    """(steps, B) sums, discounted by the frames of each step; what follows the end of an episode or of the round is
    taken to be average."""
    # Without discount the sum of an endless average would be infinite; the critic then learns the reward alone.
    average = np.full(reward.shape[1], reward.sum() / frames.sum() / (1 - gamma) if gamma < 1 else 0.0)
    gain, following = np.zeros_like(reward), average
    own, discount = discounted(reward, frames, gamma), gamma**frames
    for step in range(len(reward) - 1, -1, -1):
        following = np.where(done[step], average, following)
        gain[step] = following = own[step] + discount[step] * following
    return gain


def _joined(parts: list[Samples]) -> Samples:
    columns = ("context", "candidates", "worth", "gain")
    return Samples(*(torch.cat([getattr(part, column) for part in parts]) for column in columns))


def _actor_loss(policy: CandidatePolicy, samples: Samples, entropy: float) -> Tensor:
    log_share = torch.log_softmax(policy.scorer(samples.context, samples.candidates), dim=1)
    regret = samples.worth.amax(dim=1, keepdim=True) - samples.worth
    loss: Tensor = (log_share.exp() * (regret + entropy * log_share)).sum(dim=1).mean()
    return loss


def _critic_loss(policy: CandidatePolicy, samples: Samples) -> Tensor:
    return torch.nn.functional.mse_loss(policy.critic(samples.context, samples.candidates)[:, 0], samples.gain)


def _fit(
    module: torch.nn.Module,
    samples: Samples,
    config: WarmStartConfig,
    shuffle: torch.Generator,
    loss_of: Callable[[Samples], Tensor],
) -> None:
    optimizer = torch.optim.Adam(module.parameters(), lr=config.learning_rate)
    updates = config.epochs * -(-len(samples) // config.minibatch)
    falling = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 1.0 / updates, updates)
    for _ in range(config.epochs):
        for rows in torch.randperm(len(samples), generator=shuffle).split(config.minibatch):  # type: ignore[no-untyped-call]
            optimizer.zero_grad()
            loss_of(samples.at(rows)).backward()  # type: ignore[no-untyped-call]
            torch.nn.utils.clip_grad_norm_(module.parameters(), 5.0)
            optimizer.step()
            falling.step()
