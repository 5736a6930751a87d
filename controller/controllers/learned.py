"""``ppo``: the learned policy, frozen, as a numpy forward pass that scores every candidate.

``score_c = w3 . relu(W2 relu(Wf features_c + Wc context + b1) + b2) + v . features_c``

All candidates share the weights, so their number and order do not matter. The linear term ``v`` lets training start
from the rule ``expected-utility`` instead of from noise. The end has no bias, because a constant does not change the
argmax.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from controller.controllers.simple import Memoryless
from controller.features.fast import Features
from controller.features.schema import FEATURE_SCHEMA
from controller.records import Float32s, Ints, SystemState


@dataclass(frozen=True)
class FrozenPolicy:
    """Weights of the scoring network, float32; H and G hidden units, D context and F candidate features."""

    from_context: Float32s  # (D, H)
    from_candidate: Float32s  # (F, H)
    bias: Float32s  # (H,)
    hidden: Float32s  # (H, G)
    hidden_bias: Float32s  # (G,)
    out: Float32s  # (G,)
    linear: Float32s  # (F,)

    def __post_init__(self) -> None:
        context, candidate = len(FEATURE_SCHEMA.context), len(FEATURE_SCHEMA.candidate)
        h, g = self.hidden.shape
        shapes = {
            "from_context": (context, h),
            "from_candidate": (candidate, h),
            "bias": (h,),
            "hidden_bias": (g,),
            "out": (g,),
            "linear": (candidate,),
        }
        for name, expected in shapes.items():
            got = getattr(self, name).shape
            if got != expected:
                raise ValueError(f"policy tensor {name} has shape {got}; expected {expected}")

    def scores(self, context: Float32s, candidates: Float32s) -> Float32s:
        """(B, C) scores from context (B, D) and candidates (B, C, F)."""
        batch, count, width = candidates.shape
        flat = candidates.reshape(-1, width)
        hidden = flat.dot(self.from_candidate)
        per_row = hidden.reshape(batch, count, -1)
        per_row += (context.dot(self.from_context) + self.bias)[:, None]
        np.maximum(hidden, 0.0, out=hidden)
        deeper = hidden.dot(self.hidden)
        deeper += self.hidden_bias
        np.maximum(deeper, 0.0, out=deeper)
        scores = deeper.dot(self.out)
        scores += flat.dot(self.linear)
        return np.asarray(scores.reshape(batch, count))

    def decide(self, context: Float32s, candidates: Float32s) -> Ints:
        """(B,) row of the best score."""
        return np.asarray(self.scores(context, candidates).argmax(axis=1))


class Policy(Memoryless):
    """``ppo``: the frozen policy scores every candidate."""

    name = "ppo"

    def __init__(self, policy: FrozenPolicy, features: Features) -> None:
        self._policy = policy
        self._features = features

    def decide(self, state: SystemState) -> Ints:
        return self._policy.decide(*self._features.of(state))
