"""Tables of a small hand-made stream: decisions with frame strides, and recorded scores that decay with age."""

from __future__ import annotations

import numpy as np

from controller.costs import CostTable
from controller.records import Decision
from controller.space import DecisionSpace
from runtime.bundles.recorded import MAX_LAG, Recorded

STRIDES = (1, 2, 3, 5)
SAMPLES = 40
#: A fast and a good local row, a full offload, a split: exit, cut, payload, accuracy, head s, payload bytes, MEC s.
_BASE = (
    (0, 2, "none", 0.70, 0.002, 0.0, 0.0),
    (1, 4, "none", 0.88, 0.010, 0.0, 0.0),
    (1, 0, "jpeg30", 0.90, 0.001, 9000.0, 0.006),
    (1, 2, "u1", 0.90, 0.003, 2000.0, 0.004),
)
#: Factor on an answer's score for each further frame.
FADE = 0.9


def stream_costs(strides: tuple[int, ...] = STRIDES) -> CostTable:
    """Every base row with every stride; strides vary fastest, as in a bundle."""
    rows = [(*row, n) for row in _BASE for n in strides]
    decisions = tuple(Decision("net", 384, exit_, cut, codec, n) for exit_, cut, codec, *_, n in rows)
    stages = np.array([2 if exit_ == 0 else 4 for exit_, *_ in rows])
    variant = np.repeat(np.arange(len(_BASE)), len(strides))
    accuracy, head, payload, mec = (np.array([row[i] for row in rows]) for i in (3, 4, 5, 6))
    recorded = stream_recorded()
    return CostTable(
        DecisionSpace(decisions, stages, variant),
        accuracy,
        head,
        payload,
        0.1 * payload,
        mec,
        lagged_accuracy=None if recorded.lagged is None else recorded.lagged.mean(axis=2).T[variant].astype(float),
    )


def stream_recorded(lags: int = MAX_LAG) -> Recorded:
    """Scores that vary by sample and decay with age, all multiples of 1/255, and payload sizes."""
    rng = np.random.default_rng(0)
    accuracy = np.array([row[3] for row in _BASE])[:, None]
    score = np.clip(accuracy + 0.05 * rng.standard_normal((len(_BASE), SAMPLES)), 0, 1)
    age = FADE ** np.arange(1, lags + 1)[:, None, None]
    lagged = score * age * rng.uniform(0.9, 1.0, (lags, len(_BASE), SAMPLES))
    score, lagged = (np.rint(255 * table).astype(np.float32) / np.float32(255) for table in (score, lagged))
    jpeg, split = (np.rint(mean * rng.uniform(0.8, 1.2, SAMPLES)).astype(np.int32) for mean in (9000.0, 2000.0))
    return Recorded(score, score, None, lagged, {("net", 384, 0, "jpeg30"): jpeg, ("net", 384, 2, "u1"): split})
