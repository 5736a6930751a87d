"""The loss of the scorer with its gradient, compiled: 4.2 ms for 1,024 samples of 41 candidates, where tensors take 7.

For each sample with values v, scores s and shares p = softmax(s), with the entropy bonus e,

    loss = sum_c p_c a_c,   a_c = max(v) - v_c + e log p_c,   d loss / d s_c = p_c (a_c - loss)

The rest is back-propagation through two rectified layers. The scores are those of ``controller.controllers.scalar``:
the candidates of a few samples stand side by side, and all that is between them stays in the processor's cache.

A minibatch is cut into blocks of a fixed size, whose sums are added in order. So the result does not depend on the
number of threads.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from agents.learn.policy import FROZEN_NAMES, CandidateScorer
from controller.controllers.learned import FrozenPolicy
from controller.controllers.scalar import (
    Lanes,
    PolicyTable,
    add_products,
    fill_scores,
    make_lanes,
    policy_table,
)
from controller.records import Float32s, Floats, Ints
from envs.twin.compiled import compiled, inlined, rule, sums
from envs.twin.threads import spread

#: Samples of a block, and of them side by side.
_BLOCK, _SIDE_BY_SIDE = 128, 8
_ZERO = np.float32(0.0)


class SampleArrays(NamedTuple):
    """N samples, float32 and contiguous."""

    context: Float32s  # (N, D)
    candidates: Float32s  # (N, C, F)
    values: Float32s  # (N, C)


class Gradient(NamedTuple):
    """Sums over the samples of each of M blocks."""

    weights: PolicyTable  # every array with one more axis (M,) in front
    loss: Floats  # (M,)


class Memory(NamedTuple):
    """What is needed in between, for ``_SIDE_BY_SIDE`` samples; rows as in PolicyTable."""

    lanes: Lanes
    by_hidden: Float32s  # (H, lanes) derivative by the hidden units
    by_shared: Float32s  # (H, samples) the same, summed over the candidates of a sample
    onward: Float32s  # (G, H) the weights between the two layers, transposed


class ActorLoss:
    """The mean loss of a minibatch. Owns the memory for one."""

    def __init__(self, samples: SampleArrays, entropy: float) -> None:
        self._samples, self._entropy = samples, entropy
        self._free = list[Memory]()  # not in use by a thread

    def of(self, scorer: CandidateScorer, rows: Ints) -> Tensor:
        """Mean over the samples ``rows`` (R,); its gradient flows into the scorer's parameters."""
        loss: Tensor = _Loss.apply(self, rows, *scorer.weights().values())  # type: ignore[no-untyped-call]
        return loss

    def sums(self, policy: FrozenPolicy, rows: Ints) -> Gradient:
        """Sums over the samples ``rows``, block by block."""
        p, blocks = policy_table(policy), -(-len(rows) // _BLOCK)
        sums = Gradient(PolicyTable(*(np.zeros((blocks, *part.shape), np.float32) for part in p)), np.zeros(blocks))

        def work(part: slice) -> None:
            memory = self._free.pop() if self._free else _memory(p, self._samples.values.shape[1])
            own = Gradient(PolicyTable(*(column[part] for column in sums.weights)), sums.loss[part])
            mine = rows[part.start * _BLOCK : part.stop * _BLOCK]
            add_gradients(self._samples, p, memory, mine, self._entropy, own)
            self._free.append(memory)

        spread(work, blocks, 1)
        return sums


class _Loss(torch.autograd.Function):
    """Lets the gradient of the folded weights flow on into the parameters."""

    @staticmethod
    def forward(ctx: Any, loss: ActorLoss, rows: Ints, *weights: Tensor) -> Tensor:
        policy = FrozenPolicy(*(weight.detach().numpy() for weight in weights))
        sums, share = loss.sums(policy, rows), np.float32(1.0 / len(rows))
        parts = [getattr(sums.weights, name).sum(axis=0) * share for name in FROZEN_NAMES]
        fitting = [part[tuple(map(slice, weight.shape))] for part, weight in zip(parts, weights, strict=True)]
        ctx.gradients = list(map(torch.from_numpy, fitting))
        return torch.tensor(float(sums.loss.sum()) / len(rows))

    @staticmethod
    def backward(ctx: Any, *outer: Tensor) -> Any:
        return (None, None, *(outer[0] * gradient for gradient in ctx.gradients))


def _memory(p: PolicyTable, candidates: int) -> Memory:
    lanes = make_lanes(p, _SIDE_BY_SIDE, candidates)
    return Memory(lanes, np.zeros_like(lanes.hidden), np.zeros_like(lanes.shared), np.zeros_like(p.hidden.T, order="C"))


@compiled
def add_gradients(s: SampleArrays, p: PolicyTable, m: Memory, rows: Ints, entropy: float, sums: Gradient) -> None:
    """Add the gradients of the samples ``rows`` (R,) to the sums of their blocks (M,)."""
    count = s.values.shape[1]
    for h in range(p.hidden.shape[0]):
        for k in range(p.hidden.shape[1]):
            m.onward[k, h] = p.hidden[h, k]
    for first in range(0, len(rows), _SIDE_BY_SIDE):
        some, block = min(_SIDE_BY_SIDE, len(rows) - first), first // _BLOCK
        for n in range(some):
            gather(s, rows[first + n], m.lanes, n, count)
        fill_scores(p, m.lanes, some, count)
        for n in range(some):
            sums.loss[block] += differentiate(s.values[rows[first + n]], entropy, m.lanes.scores, n * count)
        propagate(p, m, some, count, block_of(sums.weights, block))


@inlined
def block_of(weights: PolicyTable, block: int) -> PolicyTable:
    """The sums of one block."""
    return PolicyTable(
        weights.from_context[block],
        weights.from_candidate[block],
        weights.bias[block],
        weights.hidden[block],
        weights.hidden_bias[block],
        weights.out[block],
        weights.linear[block],
    )


@rule
def gather(s: SampleArrays, row: int, m: Lanes, n: int, count: int) -> None:
    """Put a sample at place ``n``."""
    for d in range(s.context.shape[1]):
        m.context[d, n] = s.context[row, d]
    for c in range(count):
        for f in range(s.candidates.shape[2]):
            m.candidates[f, n * count + c] = s.candidates[row, c, f]


@rule
def differentiate(values: Float32s, entropy: float, scores: Float32s, first: int) -> float:
    """Put the derivatives by the scores of one sample in place of them. Returns its loss."""
    best, highest, total = values[0], scores[first], 0.0
    for c in range(len(values)):
        best, highest = max(best, values[c]), max(highest, scores[first + c])
    for c in range(len(values)):
        total += math.exp(scores[first + c] - highest)
    log_total, loss = math.log(total) + highest, 0.0
    for c in range(len(values)):
        log_share = scores[first + c] - log_total
        loss += math.exp(log_share) * (best - values[c] + entropy * log_share)
    for c in range(len(values)):
        log_share = scores[first + c] - log_total
        scores[first + c] = math.exp(log_share) * (best - values[c] + entropy * log_share - loss)
    return loss


@rule
def propagate(p: PolicyTable, m: Memory, some: int, count: int, g: PolicyTable) -> None:
    """Add the derivatives by all weights, from those by the scores; the units' memory is used up."""
    lanes, by_scores = some * count, m.lanes.scores
    weigh(m.lanes.deeper, by_scores, lanes, g.out)
    weigh(m.lanes.candidates, by_scores, lanes, g.linear)
    for k in range(len(p.out)):
        row, weight = m.lanes.deeper[k], p.out[k]
        for i in range(lanes):
            row[i] = weight * by_scores[i] if row[i] > _ZERO else _ZERO
        g.hidden_bias[k] += summed(row, 0, lanes)
    multiply(m.lanes.hidden, m.lanes.deeper, lanes, g.hidden)
    for h in range(len(p.bias)):
        for i in range(lanes):
            m.by_hidden[h, i] = _ZERO
    add_products(m.onward, m.lanes.deeper, m.by_hidden, lanes)
    for h in range(len(p.bias)):
        row, unit = m.by_hidden[h], m.lanes.hidden[h]
        for i in range(lanes):
            row[i] = row[i] if unit[i] > _ZERO else _ZERO
        for n in range(some):
            m.by_shared[h, n] = summed(row, n * count, (n + 1) * count)
        g.bias[h] += summed(m.by_shared[h], 0, some)
    multiply(m.lanes.candidates, m.by_hidden, lanes, g.from_candidate)
    multiply(m.lanes.context, m.by_shared, some, g.from_context)


@sums
def multiply(left: Float32s, right: Float32s, lanes: int, out: Float32s) -> None:
    """Add ``left`` (K, lanes) times ``right`` (H, lanes), transposed, to ``out`` (K, H): four by two at a time."""
    for k in range(0, len(left), 4):
        x0, x1, x2, x3 = left[k], left[k + 1], left[k + 2], left[k + 3]
        for h in range(0, len(right), 2):
            y0, y1 = right[h], right[h + 1]
            a0 = a1 = a2 = a3 = b0 = b1 = b2 = b3 = _ZERO
            for i in range(lanes):
                u, v = y0[i], y1[i]
                a0, a1, a2, a3 = a0 + x0[i] * u, a1 + x1[i] * u, a2 + x2[i] * u, a3 + x3[i] * u
                b0, b1, b2, b3 = b0 + x0[i] * v, b1 + x1[i] * v, b2 + x2[i] * v, b3 + x3[i] * v
            out[k, h], out[k + 1, h], out[k + 2, h], out[k + 3, h] = (
                out[k, h] + a0,
                out[k + 1, h] + a1,
                out[k + 2, h] + a2,
                out[k + 3, h] + a3,
            )
            g = h + 1
            out[k, g], out[k + 1, g], out[k + 2, g], out[k + 3, g] = (
                out[k, g] + b0,
                out[k + 1, g] + b1,
                out[k + 2, g] + b2,
                out[k + 3, g] + b3,
            )


@sums
def weigh(left: Float32s, right: Float32s, lanes: int, out: Float32s) -> None:
    """Add ``left`` (K, lanes) times ``right`` (lanes,) to ``out`` (K,)."""
    for k in range(len(left)):
        row, total = left[k], _ZERO
        for i in range(lanes):
            total += row[i] * right[i]
        out[k] += total


@sums
def summed(row: Float32s, first: int, last: int) -> Any:
    """Sum of a part of a row."""
    total = _ZERO
    for i in range(first, last):
        total += row[i]
    return total
