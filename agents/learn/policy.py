"""The actor-critic network that PPO trains: scores candidates, and is frozen into a numpy ``FrozenPolicy``.

The actor is the forward pass of ``controller.controllers.learned`` in torch, with the same tensors and names. All
candidates share its weights, so the number of candidates may vary. The critic sees the context, and the mean and
maximum over a projection of the candidates' features.
"""

from __future__ import annotations

import math
from dataclasses import fields
from typing import Any

import numpy as np
import torch
from gymnasium import spaces
from stable_baselines3.common.distributions import CategoricalDistribution, Distribution
from stable_baselines3.common.policies import MultiInputActorCriticPolicy
from stable_baselines3.common.type_aliases import PyTorchObs, Schedule
from torch import Tensor, nn

from agents.learn.config import GREEDY_WEIGHT
from controller.controllers.expected_utility import DEFAULT_ESTIMATE
from controller.controllers.learned import FrozenPolicy
from controller.features.schema import FEATURE_SCHEMA

#: Hidden units of the actor. The numpy decision costs 28 us for 48 candidates at this size.
HIDDEN, DEEPER = 24, 16
#: Factor on the last layer's output. Two good candidates differ by 0.01 in utility but by several logits; without the
#: factor the last layer would have to grow for most of a fit.
SCORE_SCALE = 20.0
#: Factor on the critic's output, so that returns well above 1 need no large weights.
VALUE_SCALE = 10.0

#: Tensors of a frozen policy.
FROZEN_NAMES = tuple(field.name for field in fields(FrozenPolicy))
#: Added to standard deviations, so that a constant feature stays finite.
_LEAST_SPREAD = 1e-3

#: The feature by which a policy decides that has not learned yet: it is the controller ``expected-utility``.
_GREEDY_RULE = FEATURE_SCHEMA.candidate.index(f"value_{DEFAULT_ESTIMATE}")


class CandidateScorer(nn.Module):
    """``scale (out . relu(hidden relu(from_candidate f_c + from_context x + bias) + hidden_bias) + linear . f_c)``."""

    context_mean: Tensor
    context_scale: Tensor
    candidate_mean: Tensor
    candidate_scale: Tensor

    def __init__(self, hidden: int, deeper: int, greedy_weight: float) -> None:
        super().__init__()
        context, candidate = len(FEATURE_SCHEMA.context), len(FEATURE_SCHEMA.candidate)
        self.from_context = _uniform(context, hidden, fan_in=context + candidate)
        self.from_candidate = _uniform(candidate, hidden, fan_in=context + candidate)
        self.bias = nn.Parameter(torch.zeros(hidden))
        self.hidden = _uniform(hidden, deeper, fan_in=hidden)
        self.hidden_bias = nn.Parameter(torch.zeros(deeper))
        # Near zero: training starts from the linear term alone.
        self.out = nn.Parameter(0.01 * torch.randn(deeper))
        start = torch.zeros(candidate)
        start[_GREEDY_RULE] = greedy_weight / SCORE_SCALE
        self.linear = nn.Parameter(start)
        # The hidden layers see standardised features; without that, one fit in three ends in a worse optimum.
        for name, width in (("context", context), ("candidate", candidate)):
            self.register_buffer(f"{name}_mean", torch.zeros(width))
            self.register_buffer(f"{name}_scale", torch.ones(width))

    def standardise(self, context: Tensor, candidates: Tensor) -> None:
        """Standardise features by the mean and deviation of these: (N, D) and (N, C, F)."""
        for name, values in (("context", context), ("candidate", candidates.flatten(0, 1))):
            getattr(self, f"{name}_mean").copy_(values.mean(dim=0))
            getattr(self, f"{name}_scale").copy_(values.std(dim=0) + _LEAST_SPREAD)

    def restandardise(self, context: Tensor, candidates: Tensor) -> None:
        """The same for a trained scorer: the weights are adapted so that every score stays equal."""
        with torch.no_grad():
            from_context, from_candidate, bias = self._folded()
            self.standardise(context, candidates)
            self.from_context.copy_(from_context * self.context_scale[:, None])
            self.from_candidate.copy_(from_candidate * self.candidate_scale[:, None])
            self.bias.copy_(bias + self.context_mean @ from_context + self.candidate_mean @ from_candidate)

    def take(self, policy: FrozenPolicy) -> None:
        """Copy the weights of a frozen policy. ValueError if its layers have other sizes."""
        weights = {name: torch.from_numpy(np.array(getattr(policy, name))) for name in FROZEN_NAMES}
        for name in ("out", "linear"):
            weights[name] /= SCORE_SCALE
        for name, width in (("context", len(self.context_mean)), ("candidate", len(self.candidate_mean))):
            weights |= {f"{name}_mean": torch.zeros(width), f"{name}_scale": torch.ones(width)}
        try:
            self.load_state_dict(weights)
        except RuntimeError as error:
            raise ValueError(" ".join(str(error).split())) from None

    def forward(self, context: Tensor, candidates: Tensor) -> Tensor:
        """(B, C) scores from (B, D) and (B, C, F)."""
        from_context, from_candidate, bias = self._folded()
        per_row = torch.addmm(bias, context, from_context)
        hidden = torch.relu(candidates @ from_candidate + per_row[:, None])
        deeper = torch.relu(hidden @ self.hidden + self.hidden_bias)
        return SCORE_SCALE * (deeper @ self.out + candidates @ self.linear)

    def frozen(self) -> FrozenPolicy:
        """The same scores with all scales folded into the weights, as numpy arrays."""
        return FrozenPolicy(**{name: tensor.detach().cpu().numpy().copy() for name, tensor in self.weights().items()})

    def weights(self) -> dict[str, Tensor]:
        """Those of the frozen policy, in its order, as tensors through which gradients flow."""
        from_context, from_candidate, bias = self._folded()
        return {
            "from_context": from_context,
            "from_candidate": from_candidate,
            "bias": bias,
            "hidden": self.hidden,
            "hidden_bias": self.hidden_bias,
            "out": SCORE_SCALE * self.out,
            "linear": SCORE_SCALE * self.linear,
        }

    def _folded(self) -> tuple[Tensor, Tensor, Tensor]:
        """Weights of the first layer for features that are not standardised."""
        from_context = self.from_context / self.context_scale[:, None]
        from_candidate = self.from_candidate / self.candidate_scale[:, None]
        bias = self.bias - self.context_mean @ from_context - self.candidate_mean @ from_candidate
        return from_context, from_candidate, bias


def scorer_of(weights: dict[str, Tensor]) -> CandidateScorer:
    """The scorer with the given state dict. KeyError or RuntimeError if it belongs to another module."""
    hidden, deeper = weights["hidden"].shape
    scorer = CandidateScorer(hidden, deeper, greedy_weight=0.0)
    scorer.load_state_dict(weights)
    return scorer


class CandidateValue(nn.Module):
    """The critic: expected return of a state."""

    def __init__(self, projection: int, width: int) -> None:
        super().__init__()
        context, candidate = len(FEATURE_SCHEMA.context), len(FEATURE_SCHEMA.candidate)
        self.project = nn.Linear(candidate, projection)
        self.body = nn.Sequential(
            nn.Linear(context + 2 * projection, width), nn.Tanh(), nn.Linear(width, width), nn.Tanh()
        )
        self.head = nn.Linear(width, 1)

    def forward(self, context: Tensor, candidates: Tensor) -> Tensor:
        """(B, 1) from (B, D) and (B, C, F)."""
        projected = torch.relu(self.project(candidates))
        summary = torch.cat([context, projected.mean(dim=1), projected.amax(dim=1)], dim=1)
        value: Tensor = self.head(self.body(summary))
        return VALUE_SCALE * value


class CandidatePolicy(MultiInputActorCriticPolicy):
    """Actor-critic policy over observations {"context": (D,), "candidates": (C * F,) or (C, F)} and C discrete
    actions.

    ``net_arch`` gives the sizes of hidden layers: ``pi`` the two layers of the scorer, ``vf`` the projection and the
    width of the critic.
    """

    def __init__(
        self,
        observation_space: spaces.Dict,
        action_space: spaces.Discrete,
        lr_schedule: Schedule,
        net_arch: dict[str, list[int]] | None = None,
        greedy_weight: float = GREEDY_WEIGHT,
        **kwargs: Any,
    ) -> None:
        self._greedy_weight = greedy_weight
        arch = net_arch or {"pi": [HIDDEN, DEEPER], "vf": [16, 64]}
        super().__init__(observation_space, action_space, lr_schedule, net_arch=arch, **kwargs)

    def _build(self, lr_schedule: Schedule) -> None:
        assert isinstance(self.net_arch, dict)
        hidden, deeper = self.net_arch["pi"]
        projection, width = self.net_arch["vf"]
        self.scorer = CandidateScorer(hidden, deeper, self._greedy_weight)
        self.critic = CandidateValue(projection, width)
        self.optimizer = self.optimizer_class(self.parameters(), **{"lr": lr_schedule(1), **self.optimizer_kwargs})

    def _get_constructor_parameters(self) -> dict[str, Any]:
        return super()._get_constructor_parameters() | {"greedy_weight": self._greedy_weight}

    def forward(self, obs: PyTorchObs, deterministic: bool = False) -> tuple[Tensor, Tensor, Tensor]:
        """Actions (B,), values (B, 1) and log probabilities (B,)."""
        distribution = self.get_distribution(obs)
        actions = distribution.get_actions(deterministic=deterministic)
        return actions, self.predict_values(obs), distribution.log_prob(actions)

    def evaluate_actions(self, obs: PyTorchObs, actions: Tensor) -> tuple[Tensor, Tensor, Tensor | None]:
        """Values (B, 1), log probabilities of the given actions (B,), and entropies (B,)."""
        distribution = self.get_distribution(obs)
        return self.predict_values(obs), distribution.log_prob(actions), distribution.entropy()

    def get_distribution(self, obs: PyTorchObs) -> Distribution:
        """Categorical over the candidates."""
        assert isinstance(obs, dict)
        assert isinstance(self.action_dist, CategoricalDistribution)
        return self.action_dist.proba_distribution(self.scorer(obs["context"], _table(obs["candidates"])))

    def predict_values(self, obs: PyTorchObs) -> Tensor:
        """(B, 1) expected returns."""
        assert isinstance(obs, dict)
        values: Tensor = self.critic(obs["context"], _table(obs["candidates"]))
        return values

    def frozen(self) -> FrozenPolicy:
        """The actor as numpy arrays."""
        return self.scorer.frozen()


def _table(candidates: Tensor) -> Tensor:
    """(B, C, F) from that or from (B, C * F): stable-baselines3's checker asks for flat observations."""
    return candidates.reshape(len(candidates), -1, len(FEATURE_SCHEMA.candidate))


def _uniform(rows: int, columns: int, fan_in: int) -> nn.Parameter:
    """A weight matrix with He's uniform initialisation for ``fan_in`` inputs in all."""
    bound = math.sqrt(6.0 / fan_in)
    return nn.Parameter(torch.empty(rows, columns).uniform_(-bound, bound))
