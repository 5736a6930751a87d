"""Which of all legal decisions are worth choosing from?

Hundreds of decisions are legal, and most are never the best one. The shortlist is the small set that loses least: over
many random conditions of a scenario range, rows are added one by one, each time the row that raises the mean of the
best utility most (greedy maximum coverage, within 1 - 1/e of the best set of that size: Nemhauser et al., 1978).
"""

from __future__ import annotations

import numpy as np

from controller.costs import CostTable
from controller.latency import predict
from controller.records import UPLINK_HISTORY, Floats, Ints, SystemState
from controller.scenario import ScenarioRange

#: Conditions to try, and the seed that makes them the same everywhere.
_CONDITIONS = 2000
_SEED = 20_260_000
#: Bandwidths tried, log-uniform: from a link that is as good as dead to one that costs nothing.
_UPLINK_BPS = (1e4, 3e7)
#: A row that adds less mean utility than this cannot be told from the ones already there.
_LEAST_GAIN = 1e-5


def shortlist(costs: CostTable, family: ScenarioRange, limit: int = 48) -> Ints:
    """At most ``limit`` rows of the table, in table order. The fastest device-only row is always among them."""
    utility = _utilities(costs, family)
    chosen = [int(row) for row in costs.local_frontier[:1]]
    best = utility[:, chosen].max(axis=1, initial=-np.inf)
    while len(chosen) < min(limit, len(costs)):
        mean = np.maximum(best[:, None], utility).mean(axis=0)
        row = int(mean.argmax())
        if mean[row] - best.mean() < _LEAST_GAIN:
            break
        chosen.append(row)
        best = np.maximum(best, utility[:, row])
    return np.array(sorted(chosen), dtype=np.int64)


def _utilities(costs: CostTable, family: ScenarioRange) -> Floats:
    """(conditions, C) utility that each row would have if the predicted latency came true."""
    state = _conditions(family)
    prediction = predict(costs, state, state.uplink_bps[:, :1])
    energy = family.utility.energy_j(prediction.head_s, prediction.transmit_s[:, :, 0])
    on_time = prediction.total_s[:, :, 0] <= state.deadline_s[:, None]
    return family.utility.of(costs.accuracy[None], on_time, energy, np.zeros((1, 1), bool))


def _conditions(family: ScenarioRange) -> SystemState:
    rng = np.random.default_rng(_SEED)
    zeros, counts = np.zeros(_CONDITIONS), np.zeros(_CONDITIONS, dtype=np.int64)

    def log_uniform(bounds: tuple[float, float]) -> Floats:
        low, high = np.log(bounds)
        return np.asarray(np.exp(rng.uniform(low, high, _CONDITIONS)))

    deadline = log_uniform(family.deadline_s)
    queue = deadline * rng.uniform(0.0, 0.3, _CONDITIONS) * rng.integers(0, 2, _CONDITIONS)
    device_load = rng.uniform(*family.device_load_frac, _CONDITIONS)
    return SystemState(
        deadline_s=deadline,
        frame_interval_s=1.0 / log_uniform(family.fps),
        frame_age_s=deadline * rng.uniform(0.0, 0.5, _CONDITIONS) * rng.integers(0, 2, _CONDITIONS),
        uplink_bps=np.repeat(log_uniform(_UPLINK_BPS)[:, None], UPLINK_HISTORY, axis=1),
        uplink_sample_count=counts,
        uplink_age_s=zeros,
        uplink_backlog_bytes=zeros,
        rtt_s=log_uniform(family.rtt_s),
        device_slowdown=log_uniform(family.device_slowdown) / (1.0 - device_load),
        queued_frames=counts,
        in_flight=counts,
        mec_queue_s=queue,
        mec_queue_mean_s=queue,
        mec_slowdown=log_uniform(family.mec_slowdown),
        mec_age_s=zeros,
        link_up=np.ones(_CONDITIONS, dtype=np.bool_),
        on_time_frac=zeros,
        fallback_frac=zeros,
    )
