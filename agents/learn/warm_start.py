"""The warm start: before PPO, the policy is fitted to the values of all candidates, in the states it visits itself.

The twin can tell what every candidate would have led to at a decision point, not only the one that was taken. So
before any trial and error the scorer is fitted to maximise

    J = E_state [ sum_c softmax(score(state))_c * worth_c(state) ]

where ``worth_c`` is what candidate c really would have brought. Its gradient has no exploration noise at all.

It goes in rounds: the policy of one round decides (without exploration, as it will be deployed) which states the next
is fitted on. In the first rounds the worth is the true utility of the frame itself, and what that does to the frames
after it is charged by three terms: delay of the device, a link that stays occupied, and a bonus for sending when
the newest sample is old, because a reply tells more than a probe. Such charges are a guess, and policies that please
them alike differ in what they earn. So in the last rounds the twin plays out the most promising candidates of each
state (``agents.learn.branches``), and the worth is what they earned. The critic is fitted to the returns of the first
rounds'
behaviour, and at the end PPO takes over.

A policy that is good already (``mecpilot train --from``) needs only the last rounds; the critic is then fitted to the
first of these.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from stable_baselines3 import PPO
from torch import Tensor

from agents.compare.rollout import make_twin
from agents.compare.setup import Setup
from agents.learn.branches import branch_values
from agents.learn.policy import CandidatePolicy
from agents.learn.semi_markov import discounted
from agents.learn.terms import Terms
from controller.controllers.hindsight import known_outcome
from controller.controllers.learned import FrozenPolicy
from controller.costs import CostTable
from controller.errors import UsageError
from controller.features.fast import Features
from controller.predict.expectation import expected_streaming, expected_utility
from controller.records import Decision, Floats, Ints, SystemState
from controller.utility import Utility

Progress = Callable[[int], None]


@dataclass(frozen=True, slots=True)
class FitConfig:
    """How a network is fitted to samples."""

    epochs: int = 8
    minibatch: int = 1024
    learning_rate: float = 5e-3  # at the start; falls linearly to zero


@dataclass(frozen=True, slots=True)
class BranchConfig:
    """The last rounds, in which the twin plays candidates out."""

    rounds: int = 3  # 0 for none
    kept_rounds: int = 3  # the newest, that each fit uses
    every: int = 2  # decisions between two states that are branched from
    candidates: int = 16  # that are played out: the most promising by their charges, and the policy's own
    frames: int = 20  # that a branch lasts
    fit: FitConfig = FitConfig(epochs=30, learning_rate=2e-3)


@dataclass(frozen=True, slots=True)
class WarmStartConfig:
    """How the scorer and the critic are fitted before PPO."""

    steps_frac: float = 0.85  # of all environment steps of a training; 0 for no warm start
    rounds: int = 5  # with charges; 0 where the scorer is a good policy already
    kept_rounds: int = 5  # the newest, that each fit uses: the first ones met the states of a worse policy
    fit: FitConfig = FitConfig()
    branches: BranchConfig = BranchConfig()
    device_penalty: float = 0.4  # utility per frame interval by which the device is late for the next frame
    link_penalty: float = 0.05  # the same for the link; it costs the next frames their offload, not their answer
    most_link_intervals: float = 10.0  # that are charged: after a failed transfer the device decides otherwise
    #: What streaming accuracy weighs where samples are a stream: latency within the deadline costs nothing in utility,
    #: but an answer that comes later is older when it is looked at.
    streaming_weight: float = 0.9
    knowledge_bonus: float = 0.1  # utility of sending ``knowledge_age_s`` after the last sample, or later
    knowledge_age_s: float = 6.0
    entropy: float = 3e-3  # keeps the softmax wide enough for PPO to try alternatives

    def __post_init__(self) -> None:
        if not 0 <= self.steps_frac < 1:
            raise UsageError(f"warm start steps_frac: got {self.steps_frac}; expected 0 or more, below 1")
        counted = {
            "": (self, ("kept_rounds", "knowledge_age_s")),
            "branches ": (self.branches, ("kept_rounds", "every", "candidates", "frames")),
            "fit ": (self.fit, ("epochs", "minibatch", "learning_rate")),
            "branches fit ": (self.branches.fit, ("epochs", "minibatch", "learning_rate")),
        }
        for part, (record, names) in counted.items():
            for name in names:
                if not getattr(record, name) > 0:
                    raise UsageError(f"warm start {part}{name}: got {getattr(record, name)}; expected more than 0")
        for part, rounds in (("", self.rounds), ("branches ", self.branches.rounds)):
            if rounds < 0:
                raise UsageError(f"warm start {part}rounds: got {rounds}; expected 0 or more")

    @property
    def all_rounds(self) -> int:
        return self.rounds + self.branches.rounds

    def round_length(self, steps: int, environments: int, rounds_left: int) -> int:
        """Decisions of each environment in a round: ``rounds_left`` rounds share ``steps_frac`` of ``steps``."""
        return int(self.steps_frac * steps) // (rounds_left * environments) if rounds_left else 0


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


@dataclass(frozen=True)
class Round:
    """What a round of the warm start was like."""

    rounds_left: int
    actor_loss: float  # mean over the last epoch of the fit; NaN when there was nothing to fit
    critic_loss: float | None  # None in a round that did not fit the critic
    terms: Terms  # what happened in the frames that were played


def warm_start(
    model: PPO,
    worlds: Sequence[Setup],
    config: WarmStartConfig,
    steps: int,
    progress: Progress = lambda _: None,
    rounds_left: int | None = None,
    ended: Callable[[Round], None] = lambda _: None,
    most_per_round: int | None = None,
) -> None:
    """Fit the model's scorer and critic with ``steps_frac`` of ``steps`` environment steps.

    Worlds of equally many candidates share the environments. ``progress`` is called with the steps done so far, often,
    and may raise to stop; the model is then as the last round left it, or in the middle of a fit. ``ended`` is called
    after each round. ``rounds_left`` resumes a warm start that was stopped: samples of its earlier rounds that a fit
    would use are collected anew, by the policy as it is now, and their steps are not counted. A round has
    ``most_per_round`` decisions of each environment at most. A share too small for one of them means no warm start.
    """
    left = config.all_rounds if rounds_left is None else rounds_left
    length = config.round_length(steps, model.n_envs, left)
    length = length if most_per_round is None else min(length, most_per_round)
    if length == 0:
        return
    _WarmStart(model, worlds, config, length, progress, left).run(ended)


class _WarmStart:
    """Owns the players, the samples that the next fit uses, and the order in which fits see them."""

    def __init__(
        self,
        model: PPO,
        worlds: Sequence[Setup],
        config: WarmStartConfig,
        length: int,
        progress: Progress,
        rounds_left: int,
    ) -> None:
        assert isinstance(model.policy, CandidatePolicy)
        self._model, self._policy, self._config = model, model.policy, config
        self._length, self._done = length, config.all_rounds - rounds_left
        self._beat = lambda: progress(model.num_timesteps)
        seed = (model.seed or 0) + self._done  # a resumed training meets other scenarios than its first part
        self._shuffle = torch.Generator().manual_seed(seed)
        batch = model.n_envs // len(worlds)
        self._players = [_Player(model, setup, batch, seed, config, self._beat) for setup in worlds]
        self._kept = list[Samples]()

    def run(self, ended: Callable[[Round], None]) -> None:
        for number in range(self._done, self._config.all_rounds):
            terms = Terms(self._players[0].decisions)
            branching = number >= self._config.rounds
            within = number - self._config.rounds if branching else number
            actor_loss = self._branch_round(within, terms) if branching else self._charged_round(within, terms)
            critic_loss = self._fit_critic() if number == max(self._config.rounds - 1, 0) else None
            ended(Round(self._config.all_rounds - number - 1, actor_loss, critic_loss, terms))

    def _charged_round(self, number: int, terms: Terms) -> float:
        self._collect(number, self._config.kept_rounds, "charged", 1, terms)
        if number == 0:
            self._policy.scorer.standardise(self._kept[0].context, self._kept[0].candidates)
        return self._fit_actor(self._config.fit)

    def _branch_round(self, number: int, terms: Terms) -> float:
        branches = self._config.branches
        self._collect(number, branches.kept_rounds, "played_out", branches.every, terms)
        if number == 0 and self._config.rounds == 0 and len(self._kept[0]):
            self._policy.scorer.restandardise(self._kept[0].context, self._kept[0].candidates)
        return self._fit_actor(branches.fit)

    def _collect(self, number: int, kept_rounds: int, worth: str, every: int, terms: Terms) -> None:
        """Samples of this round of its kind, and of those before it that a resumed training lacks."""
        if number == 0:
            self._kept = []
        before = self._model.num_timesteps
        while len(self._kept) < min(number, kept_rounds - 1):
            self._kept.append(self._played(worth, every, Terms(terms.decisions)))
            self._model.num_timesteps = before
        self._kept = [*self._kept, self._played(worth, every, terms)][-kept_rounds:]

    def _played(self, worth: str, every: int, terms: Terms) -> Samples:
        return _joined([player.play(self._length, getattr(player, worth), every, terms) for player in self._players])

    def _fit_actor(self, fit: FitConfig) -> float:
        loss = partial(_actor_loss, self._policy, self._config.entropy)
        return _fit(self._policy.scorer, _joined(self._kept), fit, self._shuffle, loss, self._beat)

    def _fit_critic(self) -> float:
        loss = partial(_critic_loss, self._policy)
        return _fit(self._policy.critic, _joined(self._kept), self._config.fit, self._shuffle, loss, self._beat)


def worth(costs: CostTable, state: SystemState, utility: Utility, config: WarmStartConfig) -> Floats:
    """(B, C) true utility of each candidate, less what it costs the next frames, plus what it lets them know.

    All of it per frame that the candidate answers.
    """
    known = known_outcome(costs, state)
    interval = state.capture_period_s[:, None]
    device = np.maximum((state.frame_age_s[:, None] + known.head_s) / interval - costs.stride, 0.0)
    link = np.clip(known.link_s / interval - costs.stride, 0.0, config.most_link_intervals)
    unknown = np.minimum(state.uplink_age_s / config.knowledge_age_s, 1.0)[:, None] * ~costs.space.device_only
    own = expected_utility(costs, state, utility, known)
    charge = config.device_penalty * device + config.link_penalty * link
    if costs.lagged_accuracy is not None:
        own = own + config.streaming_weight * expected_streaming(costs, state, known)
    return np.asarray(own + (config.knowledge_bonus * unknown - charge) / costs.stride)


class _Player:
    """Plays the twin with the present policy and values every candidate. Owns the twin's state."""

    def __init__(
        self, model: PPO, setup: Setup, batch: int, seed: int, config: WarmStartConfig, beat: Callable[[], None]
    ) -> None:
        self._model, self._config, self._beat = model, config, beat
        self._twin = make_twin(setup, batch, seed, reward="expected", oracle=True)
        self._features = Features(setup.costs, setup.range.utility)
        self._state = self._twin.reset()
        self._frozen: FrozenPolicy
        self._chosen: Ints

    @property
    def decisions(self) -> tuple[Decision, ...]:
        return self._twin.costs.space.decisions

    def play(self, length: int, worth_of: Callable[[], Floats], every: int, terms: Terms) -> Samples:
        """Play ``length`` decisions of each environment; samples of every ``every``-th one that has values."""
        assert isinstance(self._model.policy, CandidatePolicy)
        twin, self._frozen = self._twin, self._model.policy.frozen()
        kept, happened = [], []
        for step in range(length):
            context, candidates = self._features.of(self._state)
            self._chosen = self._frozen.decide(context, candidates)
            if step % every == 0:
                kept.append((context, candidates, worth_of().astype(np.float32)))
            interval_s = self._state.capture_period_s
            self._state, record = twin.step(self._chosen)
            terms.add(record, twin.range.utility, interval_s)
            frames = record.frames if twin.costs.longest_stride > 1 else np.ones_like(record.frames)
            happened.append((record.reward, frames, record.done))
            if record.done.any():
                self._state = twin.reset(record.done)
            self._model.num_timesteps += twin.batch
            self._beat()
        reward, frames, done = (np.stack(column) for column in zip(*happened, strict=True))
        gains = _gains(reward, frames, done, self._model.gamma)[::every]
        columns = (*(np.stack(column) for column in zip(*kept, strict=True)), gains.astype(np.float32))
        samples = Samples(*(torch.from_numpy(column.reshape(-1, *column.shape[2:])) for column in columns))
        return samples.at(samples.worth.isfinite().all(dim=1))

    def charged(self) -> Floats:
        """(B, C) value of each candidate: its utility less penalties."""
        return worth(self._twin.costs, self._state, self._twin.range.utility, self._config)

    def played_out(self) -> Floats:
        """(B, C) value of each candidate when the policy goes on from it; NaN where the episode ends too soon.

        Most are not tried: they are taken to be as much worse than the policy's choice as their charges say, and
        worse than all that were tried.
        """
        options, twin, chosen = self._config.branches, self._twin, self._chosen[:, None]
        promised = self.charged()
        ranked = promised.copy()
        np.put_along_axis(ranked, chosen, np.inf, axis=1)
        count = min(options.candidates, ranked.shape[1])
        tried = np.argpartition(-ranked, count - 1, axis=1)[:, :count]
        weight = self._config.streaming_weight
        value = branch_values(twin, self._frozen, tried, options.frames, self._model.gamma, weight)
        own = value[tried == chosen][:, None]
        rest = own + promised - np.take_along_axis(promised, chosen, axis=1)
        found = np.minimum(rest, value.min(axis=1, keepdims=True))
        np.put_along_axis(found, tried, value, axis=1)
        found[twin.frames_left < options.frames] = np.nan
        return np.asarray(found)


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


def _actor_loss(policy: CandidatePolicy, entropy: float, samples: Samples) -> Tensor:
    log_share = torch.log_softmax(policy.scorer(samples.context, samples.candidates), dim=1)
    regret = samples.worth.amax(dim=1, keepdim=True) - samples.worth
    loss: Tensor = (log_share.exp() * (regret + entropy * log_share)).sum(dim=1).mean()
    return loss


def _critic_loss(policy: CandidatePolicy, samples: Samples) -> Tensor:
    return torch.nn.functional.mse_loss(policy.critic(samples.context, samples.candidates)[:, 0], samples.gain)


def _fit(
    module: torch.nn.Module,
    samples: Samples,
    config: FitConfig,
    shuffle: torch.Generator,
    loss_of: Callable[[Samples], Tensor],
    beat: Callable[[], None],
) -> float:
    """Mean loss over the last epoch; NaN without samples. ``beat`` is called before each minibatch."""
    if not len(samples):  # episodes too short to play anything out
        return float("nan")
    optimizer = torch.optim.Adam(module.parameters(), lr=config.learning_rate)
    updates = config.epochs * -(-len(samples) // config.minibatch)
    falling = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 1.0 / updates, updates)
    for _ in range(config.epochs):
        total = 0.0
        for rows in torch.randperm(len(samples), generator=shuffle).split(config.minibatch):  # type: ignore[no-untyped-call]
            beat()
            optimizer.zero_grad()
            loss = loss_of(samples.at(rows))
            loss.backward()  # type: ignore[no-untyped-call]
            torch.nn.utils.clip_grad_norm_(module.parameters(), 5.0)
            optimizer.step()
            falling.step()
            total += loss.item() * len(rows)
    return total / len(samples)
