"""Makes small twins: a cost table of imaginary models, random traces and random scores."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np

from controller.costs import CostTable
from controller.predict.uplink import Trace, TraceBank
from controller.records import Decision
from controller.scenario import ScenarioRange
from controller.space import DecisionSpace
from envs.twin.twin import Twin

SAMPLES = 50
#: Conditions under which all that can happen does.
WIDE = ScenarioRange(
    fps=(4.0, 40.0),
    deadline_s=(0.02, 0.6),
    device_slowdown=(5.0, 300.0),
    device_load_frac=(0.0, 0.8),
    uplink_share_frac=(0.003, 0.3),
    frames=60,
)


def table(rows: int = 24, seed: int = 0) -> CostTable:
    """Models of two sizes with four stages, exits after the second and the last, and every partition point."""
    rng = np.random.default_rng(seed)
    every = [
        Decision(model, 28, exit_branch, cut, "none" if cut == stages else "u8")
        for model in ("small", "large")
        for exit_branch, stages in ((0, 2), (1, 4))
        for cut in range(stages + 1)
    ]
    chosen = sorted(rng.permutation(len(every))[:rows])
    decisions = [every[i] for i in chosen if every[i].payload == "u8"]
    decisions += [d for d in every if d.payload == "none"]
    stages = np.array([2 if d.exit_branch == 0 else 4 for d in decisions])
    cut = np.array([d.partition_point for d in decisions])
    stage_s = np.array([1e-4 if d.model == "small" else 4e-4 for d in decisions])
    sent = cut < stages
    return CostTable(
        DecisionSpace(tuple(decisions), stages, np.arange(len(decisions))),
        accuracy=0.7 + 0.05 * stages + 100 * stage_s + rng.uniform(0, 0.01, len(decisions)),
        head_s=2e-5 + cut * stage_s,
        payload_bytes=np.where(sent, 784.0 / (1 + cut), 0.0),
        payload_std_bytes=np.where(sent & (cut > 0), 60.0, 0.0),
        mec_s=np.where(sent, 3e-5 + (stages - cut) * stage_s, 0.0),
    )


def traces(count: int = 6, seed: int = 0, outages: bool = True) -> TraceBank:
    """Lognormal bandwidth per second around 1 to 100 Mbit/s, with outages."""
    rng = np.random.default_rng(seed)
    made = []
    for number in range(count):
        rate = 1e6 * 10 ** rng.uniform(0, 2) * np.exp(0.8 * rng.standard_normal(120))
        if outages:
            rate[rng.random(120) < 0.05] = 0.0
        made.append(Trace(f"made/{number}", np.arange(120.0), rate, 1.0))
    return TraceBank(made)


def scores_only(score: np.ndarray) -> SimpleNamespace:
    """Recorded scores of samples that are not a stream."""
    return SimpleNamespace(score=score, lagged=None, payload_bytes=None)


def recorded(costs: CostTable, seed: int = 0) -> SimpleNamespace:
    """A random score in [0, 1] for every variant and sample."""
    score = np.random.default_rng(seed).random((len(costs), SAMPLES))
    return scores_only(score.astype(np.float32))


def make_twin(batch: int = 8, seed: int = 0, **options: object) -> Twin:
    costs = table()
    range_ = options.pop("range", ScenarioRange(frames=60))
    return Twin(costs, traces(), recorded(costs), range_, batch, seed, **options)  # type: ignore[arg-type]
