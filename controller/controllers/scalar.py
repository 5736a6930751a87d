"""The scores of the frozen policy on plain numbers: what is compiled where the twin plays many devices ahead.

It gives what ``controller.controllers.learned.FrozenPolicy.scores`` says, within the rounding of float32; a test
compares the two. Each of ``lanes`` columns is one candidate of one state, so long rows of numbers are added to each
other, which the compiler turns into vector instructions: 0.8 us for 41 candidates, where numpy takes 1.9 us. The device
uses numpy: to compile this, too, would delay its start.

Shapes: N states of C candidates each; H and G hidden units, D context and F candidate features, all four filled up with
zeros to multiples of four. ``lanes`` is N * C: the candidates of all states, one state after another.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from controller.controllers.learned import FrozenPolicy
from controller.records import Float32s

_FOUR = 4
_ZERO = np.float32(0.0)


class PolicyTable(NamedTuple):
    """The weights of a FrozenPolicy, float32."""

    from_context: Float32s  # (D, H)
    from_candidate: Float32s  # (F, H)
    bias: Float32s  # (H,)
    hidden: Float32s  # (H, G)
    hidden_bias: Float32s  # (G,)
    out: Float32s  # (G,)
    linear: Float32s  # (F,)


class Lanes(NamedTuple):
    """Memory for several states side by side. Rows beyond the features stay zero."""

    context: Float32s  # (D, N)
    candidates: Float32s  # (F, lanes)
    shared: Float32s  # (H, N) what the context adds to every candidate
    hidden: Float32s  # (H, lanes)
    deeper: Float32s  # (G, lanes)
    scores: Float32s  # (lanes,)


def policy_table(policy: FrozenPolicy) -> PolicyTable:
    """The weights, filled up with zeros."""
    return PolicyTable(*(_filled(getattr(policy, name)) for name in PolicyTable._fields))


def _filled(weights: Float32s) -> Float32s:
    filled = np.pad(weights, [(0, -count % _FOUR) for count in weights.shape])
    return np.ascontiguousarray(filled, np.float32)


def make_lanes(p: PolicyTable, states: int, candidates: int) -> Lanes:
    """Memory for so many states with so many candidates each."""
    (d, h), g, lanes = p.from_context.shape, len(p.out), states * candidates
    shapes = ((d, states), (len(p.linear), lanes), (h, states), (h, lanes), (g, lanes), (lanes,))
    return Lanes(*(np.zeros(shape, np.float32) for shape in shapes))


def fill_scores(p: PolicyTable, m: Lanes, states: int, count: int) -> None:
    """Scores of the first states, whose features are there, ``count`` candidates each."""
    lanes = states * count
    begin_rows(m.shared, p.bias, states)
    add_products(p.from_context, m.context, m.shared, states)
    for h in range(len(m.shared)):
        row = m.hidden[h]
        for n in range(states):
            shared = m.shared[h, n]
            for lane in range(n * count, (n + 1) * count):
                row[lane] = shared
    add_products(p.from_candidate, m.candidates, m.hidden, lanes)
    keep_positive(m.hidden, lanes)
    begin_rows(m.deeper, p.hidden_bias, lanes)
    add_products(p.hidden, m.hidden, m.deeper, lanes)
    keep_positive(m.deeper, lanes)
    m.scores[:lanes] = _ZERO
    add_weighted(p.out, m.deeper, m.scores, lanes)
    add_weighted(p.linear, m.candidates, m.scores, lanes)


def begin_rows(rows: Float32s, bias: Float32s, lanes: int) -> None:
    """Set every row to its bias."""
    for k in range(len(rows)):
        row, value = rows[k], bias[k]
        for i in range(lanes):
            row[i] = value


def add_products(weights: Float32s, rows: Float32s, out: Float32s, lanes: int) -> None:
    """Add ``weights`` (K, H), transposed, times ``rows`` (K, lanes) to ``out`` (H, lanes).

    Two rows of ``out`` and four of ``rows`` at a time, so that what was read once is used several times.
    """
    for h in range(0, weights.shape[1], 2):
        out0, out1 = out[h], out[h + 1]
        for k in range(0, weights.shape[0], _FOUR):
            row0, row1, row2, row3 = rows[k], rows[k + 1], rows[k + 2], rows[k + 3]
            a0, a1, a2, a3 = weights[k, h], weights[k + 1, h], weights[k + 2, h], weights[k + 3, h]
            b0, b1, b2, b3 = weights[k, h + 1], weights[k + 1, h + 1], weights[k + 2, h + 1], weights[k + 3, h + 1]
            for i in range(lanes):
                x0, x1, x2, x3 = row0[i], row1[i], row2[i], row3[i]
                out0[i] += a0 * x0 + a1 * x1 + a2 * x2 + a3 * x3
                out1[i] += b0 * x0 + b1 * x1 + b2 * x2 + b3 * x3


def add_weighted(weights: Float32s, rows: Float32s, out: Float32s, lanes: int) -> None:
    """Add ``weights`` (K,) times ``rows`` (K, lanes) to ``out`` (lanes,)."""
    for k in range(0, len(weights), _FOUR):
        row0, row1, row2, row3 = rows[k], rows[k + 1], rows[k + 2], rows[k + 3]
        w0, w1, w2, w3 = weights[k], weights[k + 1], weights[k + 2], weights[k + 3]
        for i in range(lanes):
            out[i] += w0 * row0[i] + w1 * row1[i] + w2 * row2[i] + w3 * row3[i]


def keep_positive(rows: Float32s, lanes: int) -> None:
    """The rectifier, in place."""
    for k in range(len(rows)):
        row = rows[k]
        for i in range(lanes):
            row[i] = max(row[i], _ZERO)


def best_of(scores: Float32s, first: int, count: int) -> int:
    """Which of ``count`` candidates scores best; the first of equals."""
    best = 0
    for c in range(1, count):
        if scores[first + c] > scores[first + best]:
            best = c
    return best
