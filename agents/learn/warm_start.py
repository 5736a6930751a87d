"""The warm start: fits the policy to the values of all candidates before PPO, in the states that it visits itself.

At a decision point the twin can evaluate every candidate, not only the one that was taken. So before any trial and
error the scorer is fitted to maximise

    J = E_state [ sum_c softmax(score(state))_c * value_c(state) ]

where ``value_c`` is the value of candidate c. The gradient of J has no exploration noise.

The fit is iterated in rounds: the policy of one round, without exploration as when deployed, visits the states that the
next round is fitted on. There are two kinds of rounds.

* In the first ones (none by default: the rule that a policy starts from does as well) the value is the true utility of
  the frame itself, corrected for the effect on later frames: a penalty for a busy device, one for an occupied link, and
  a bonus for sending when the newest bandwidth sample is old, because a reply gives better samples than a probe
  (``penalised_utility``). These terms are a guess: policies that score alike on them still differ in utility.
* In the last ones the twin plays the most promising candidates of each state out (``agents.learn.branches``), and the
  value is the utility that they earned.

The critic is fitted to the returns that the policies of the first rounds earned. Then PPO takes over. A policy that is
good already (``mecpilot train --from``) needs only the last rounds; the critic is then fitted after the first of them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from stable_baselines3 import PPO
from torch import Tensor

from agents.learn.actor_loss import ActorLoss, SampleArrays
from agents.learn.branches import branch_values
from agents.learn.config import FitConfig, WarmStartConfig
from agents.learn.policy import CandidatePolicy
from agents.learn.semi_markov import discounted
from agents.learn.terms import Terms
from controller.controllers.greedy_oracle import known_outcome
from controller.controllers.learned import FrozenPolicy
from controller.costs import CostTable
from controller.features.fast import Features
from controller.predict.expectation import expected_streaming, expected_utility
from controller.records import Decision, Floats, Ints, SystemState
from controller.utility import Utility
from envs.search.best import best_values
from envs.setup import Setup

Progress = Callable[[int], None]


@dataclass(frozen=True)
class Samples:
    """Decision points in order of time, with the values to fit; N = steps x environments."""

    context: Tensor  # (N, D)
    candidates: Tensor  # (N, C, F)
    values: Tensor  # (N, C) of the candidates
    returns: Tensor  # (N,) discounted utility from this decision on

    def __len__(self) -> int:
        return len(self.returns)

    def at(self, rows: Tensor) -> Samples:
        return Samples(self.context[rows], self.candidates[rows], self.values[rows], self.returns[rows])


@dataclass(frozen=True)
class Round:
    """Results of one round of the warm start."""

    rounds_left: int
    actor_loss: float  # mean over the last epoch of the fit; NaN without samples
    critic_loss: float | None  # None if the critic was not fitted in this round
    terms: Terms  # sums over the frames that were played


def warm_start(
    model: PPO,
    setups: Sequence[Setup],
    config: WarmStartConfig,
    steps: int,
    progress: Progress = lambda _: None,
    rounds_left: int | None = None,
    ended: Callable[[Round], None] = lambda _: None,
    most_per_round: int | None = None,
) -> None:
    """Fit the model's scorer and critic with ``steps_frac`` of ``steps`` environment steps.

    setups: share the environments equally; they need the same number of candidates.
    progress: called often, with the steps done; may raise to stop. The model may then be in the middle of a fit.
    ended: called after each round.
    rounds_left: resumes an interrupted warm start. Samples of earlier rounds that a fit uses are collected again with
        the present policy; their steps are not counted.
    most_per_round: limit of the decisions per environment and round.

    Returns at once if ``steps_frac`` of ``steps`` is less than one decision per environment and round.
    """
    left = config.all_rounds if rounds_left is None else rounds_left
    length = config.round_length(steps, model.n_envs, left)
    length = length if most_per_round is None else min(length, most_per_round)
    if length == 0:
        return
    _WarmStart(model, setups, config, length, progress, left).run(ended)


class _WarmStart:
    """Owns the players, the samples for the next fit, and their shuffling."""

    def __init__(
        self,
        model: PPO,
        setups: Sequence[Setup],
        config: WarmStartConfig,
        length: int,
        progress: Progress,
        rounds_left: int,
    ) -> None:
        assert isinstance(model.policy, CandidatePolicy)
        self._model, self._policy, self._config = model, model.policy, config
        self._length, self._done = length, config.all_rounds - rounds_left
        self._on_step = lambda: progress(model.num_timesteps)
        seed = (model.seed or 0) + self._done  # a resumed training must not repeat the scenarios of its first part
        self._shuffle = torch.Generator().manual_seed(seed)
        batch = model.n_envs // len(setups)
        self._players = [_Player(model, setup, batch, seed, config, self._on_step) for setup in setups]
        self._kept = list[Samples]()

    def run(self, ended: Callable[[Round], None]) -> None:
        for number in range(self._done, self._config.all_rounds):
            terms = Terms(self._players[0].decisions)
            branching = number >= self._config.rounds
            within = number - self._config.rounds if branching else number
            actor_loss = self._branch_round(within, terms) if branching else self._penalised_round(within, terms)
            critic_loss = self._fit_critic() if number == max(self._config.rounds - 1, 0) else None
            ended(Round(self._config.all_rounds - number - 1, actor_loss, critic_loss, terms))

    def _penalised_round(self, number: int, terms: Terms) -> float:
        self._collect(number, self._config.kept_rounds, _Player.penalised, 1, terms)
        if number == 0:
            self._policy.scorer.standardise(self._kept[0].context, self._kept[0].candidates)
        return self._fit_actor(self._config.fit)

    def _branch_round(self, number: int, terms: Terms) -> float:
        branches = self._config.branches
        self._collect(number, branches.kept_rounds, _Player.played_out, branches.every, terms)
        if number == 0 and self._config.rounds == 0 and len(self._kept[0]):
            self._policy.scorer.restandardise(self._kept[0].context, self._kept[0].candidates)
        return self._fit_actor(branches.fit)

    def _collect(self, number: int, kept_rounds: int, values_of: ValuesOf, every: int, terms: Terms) -> None:
        """Collect the samples of round ``number`` of its kind, and of earlier ones that a resumed training lacks."""
        if number == 0:
            self._kept = []
        before = self._model.num_timesteps
        while len(self._kept) < min(number, kept_rounds - 1):
            self._kept.append(self._played(values_of, every, Terms(terms.decisions)))
            self._model.num_timesteps = before
        self._kept = [*self._kept, self._played(values_of, every, terms)][-kept_rounds:]

    def _played(self, values_of: ValuesOf, every: int, terms: Terms) -> Samples:
        return _joined([player.play(self._length, values_of, every, terms) for player in self._players])

    def _fit_actor(self, fit: FitConfig) -> float:
        samples, scorer = _joined(self._kept), self._policy.scorer
        arrays = SampleArrays(samples.context.numpy(), samples.candidates.numpy(), samples.values.numpy())
        loss = ActorLoss(arrays, self._config.entropy)
        return _fit(scorer, len(samples), fit, self._shuffle, lambda rows: loss.of(scorer, rows.numpy()), self._on_step)

    def _fit_critic(self) -> float:
        samples, critic = _joined(self._kept), self._policy.critic

        def loss(rows: Tensor) -> Tensor:
            part = samples.at(rows)
            return torch.nn.functional.mse_loss(critic(part.context, part.candidates)[:, 0], part.returns)

        return _fit(critic, len(samples), self._config.fit, self._shuffle, loss, self._on_step)


def penalised_utility(costs: CostTable, state: SystemState, utility: Utility, config: WarmStartConfig) -> Floats:
    """(B, C) true utility of each candidate per frame that it covers, with penalties for delaying the next frames and
    a bonus for measuring the uplink."""
    known = known_outcome(costs, state)
    interval = state.capture_period_s[:, None]
    device = np.maximum((state.frame_age_s[:, None] + known.head_s) / interval - costs.stride, 0.0)
    link = np.clip(known.link_s / interval - costs.stride, 0.0, config.most_link_intervals)
    unknown = np.minimum(state.uplink_age_s / config.knowledge_age_s, 1.0)[:, None] * ~costs.space.device_only
    own = expected_utility(costs, state, utility, known)
    penalty = config.device_penalty * device + config.link_penalty * link
    if costs.lagged_accuracy is not None:
        own = own + config.streaming_weight * expected_streaming(costs, state, known)
    return np.asarray(own + (config.knowledge_bonus * unknown - penalty) / costs.stride)


class _Player:
    """Plays the twin with the present policy and evaluates every candidate. Owns the twin and its state."""

    def __init__(
        self, model: PPO, setup: Setup, batch: int, seed: int, config: WarmStartConfig, on_step: Callable[[], None]
    ) -> None:
        self._model, self._config, self._on_step = model, config, on_step
        self._twin = setup.twin(batch, seed, reward="expected", oracle=True)
        self._features = Features(setup.costs, setup.range.utility)
        self._state = self._twin.reset()
        self._frozen: FrozenPolicy
        self._chosen: Ints

    @property
    def decisions(self) -> tuple[Decision, ...]:
        return self._twin.costs.space.decisions

    def play(self, length: int, values_of: ValuesOf, every: int, terms: Terms) -> Samples:
        """Play ``length`` decisions per environment. Returns samples of every ``every``-th one, if it has values."""
        assert isinstance(self._model.policy, CandidatePolicy)
        twin, self._frozen = self._twin, self._model.policy.frozen()
        kept, steps = [], []
        for step in range(length):
            context, candidates = self._features.of(self._state)
            self._chosen = self._frozen.decide(context, candidates)
            if step % every == 0:
                kept.append((context, candidates, values_of(self).astype(np.float32)))
            interval_s = self._state.capture_period_s
            self._state, record = twin.step(self._chosen)
            terms.add(record, twin.range.utility, interval_s)
            frames = record.frames if twin.costs.longest_stride > 1 else np.ones_like(record.frames)
            steps.append((record.reward, frames, record.done))
            if record.done.any():
                self._state = twin.reset(record.done)
            self._model.num_timesteps += twin.batch
            self._on_step()
        reward, frames, done = (np.stack(column) for column in zip(*steps, strict=True))
        returns = _returns(reward, frames, done, self._model.gamma)[::every]
        columns = (*(np.stack(column) for column in zip(*kept, strict=True)), returns.astype(np.float32))
        samples = Samples(*(torch.from_numpy(column.reshape(-1, *column.shape[2:])) for column in columns))
        return samples.at(samples.values.isfinite().all(dim=1))

    def penalised(self) -> Floats:
        """(B, C) penalised utility of each candidate."""
        return penalised_utility(self._twin.costs, self._state, self._twin.range.utility, self._config)

    def played_out(self) -> Floats:
        """(B, C) utility that each candidate earns if the policy continues from it; NaN where the episode ends too
        soon.

        Only some candidates are played out. The others differ from the policy's choice as their penalised utilities
        do, but never exceed the worst candidate that was played out.
        """
        options, twin, chosen = self._config.branches, self._twin, self._chosen[:, None]
        predicted = self.penalised()
        ranked = predicted.copy()
        np.put_along_axis(ranked, chosen, np.inf, axis=1)
        count = min(options.candidates, ranked.shape[1])
        tried = np.argpartition(-ranked, count - 1, axis=1)[:, :count]
        played = self._values(tried)
        own = played[tried == chosen][:, None]
        others = own + predicted - np.take_along_axis(predicted, chosen, axis=1)
        values = np.minimum(others, played.min(axis=1, keepdims=True))
        np.put_along_axis(values, tried, played, axis=1)
        values[twin.frames_left < options.frames] = np.nan
        return np.asarray(values)

    def _values(self, tried: Ints) -> Floats:
        """(B, K) values of the candidates that are played out: the branches', the beam search's, or a mix of both."""
        options, gamma, weight = self._config.branches, self._model.gamma, self._config.streaming_weight
        share, values = options.expert_frac, np.zeros(tried.shape)
        if share < 1:
            values += (1 - share) * branch_values(self._twin, self._frozen, tried, options.frames, gamma, weight)
        if share > 0:
            width = options.expert_width
            values += share * best_values(self._twin, tried, options.frames, gamma, weight, width)
        return values


ValuesOf = Callable[[_Player], Floats]  # (B, C) of the candidates in the present states


def _returns(reward: np.ndarray, frames: np.ndarray, done: np.ndarray, gamma: float) -> np.ndarray:
    """(steps, B) returns, discounted per frame. After the end of an episode or of the round the mean is assumed."""
    # Without a discount the return of an infinite mean would be infinite; then the critic learns the reward alone.
    average = np.full(reward.shape[1], reward.sum() / frames.sum() / (1 - gamma) if gamma < 1 else 0.0)
    returns, following = np.zeros_like(reward), average
    own, discount = discounted(reward, frames, gamma), gamma**frames
    for step in range(len(reward) - 1, -1, -1):
        following = np.where(done[step], average, following)
        returns[step] = following = own[step] + discount[step] * following
    return returns


def _joined(parts: list[Samples]) -> Samples:
    columns = ("context", "candidates", "values", "returns")
    return Samples(*(torch.cat([getattr(part, column) for part in parts]) for column in columns))


def _fit(
    module: torch.nn.Module,
    count: int,
    config: FitConfig,
    shuffle: torch.Generator,
    loss_of: Callable[[Tensor], Tensor],
    on_step: Callable[[], None],
) -> float:
    """Mean loss over the last epoch; NaN without samples.

    ``loss_of``: the loss of the samples with the given numbers, out of ``count``. ``on_step`` is called before each
    minibatch.
    """
    if not count:  # all episodes were too short to play candidates out
        return float("nan")
    optimizer = torch.optim.Adam(module.parameters(), lr=config.learning_rate, fused=True)
    updates = config.epochs * -(-count // config.minibatch)
    schedule = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 1.0 / updates, updates)
    for _ in range(config.epochs):
        total = 0.0
        for rows in torch.randperm(count, generator=shuffle).split(config.minibatch):  # type: ignore[no-untyped-call]
            on_step()
            optimizer.zero_grad()
            loss = loss_of(rows)
            loss.backward()  # type: ignore[no-untyped-call]
            torch.nn.utils.clip_grad_norm_(module.parameters(), 5.0)
            optimizer.step()
            schedule.step()
            total += loss.item() * len(rows)
    return total / count
