"""The shortlist: the candidates that controllers choose from, out of all legal decisions.

Hundreds of decisions are legal, and most are never the best one. The shortlist is the small set that loses least: over
many random conditions of a scenario range, rows are added one by one, each time the row that raises the mean of the
best utility most (greedy maximum coverage, within 1 - 1/e of the best set of that size: Nemhauser et al., 1978).

On a narrow link only few rows are in time for a slow device, and which ones changes with a few bytes and milliseconds.
So conditions are drawn densely there, in addition to the usual ones: a row that alone fits must meet one of them.

With frame strides, utility is per frame. A row that takes longer than its stride earns it only for the share of
decisions that the device or the link can serve; without that rule no long stride would ever be chosen. Dominated rows
are left out beforehand.

Gated rows are added to this list: turning a gate on takes no row away.
"""

from __future__ import annotations

import numpy as np

from controller.costs import CostTable
from controller.predict.expectation import idle_state, over_paths, skipped_score
from controller.predict.latency import predict
from controller.records import NO_ROW, UPLINK_HISTORY, Bools, Floats, Ints, SystemState
from controller.scenario import ScenarioRange
from controller.utility import Utility

#: Number of conditions to try, and the seed that makes them the same everywhere.
_CONDITIONS = 2000
_SEED = 20_260_000
#: Bandwidths tried, log-uniform: from a nearly dead link to one on which transmission costs nothing.
_UPLINK_BPS = (1e4, 3e7)
#: The same for narrow links.
_NARROW, _NARROW_BPS = 4000, (8e3, 2.5e5)
#: Number of rows to choose, without and with frame strides.
LIMIT, LIMIT_OF_STRIDES = 48, 60
#: With frame strides: share of these for device-only rows, and the same share for full offloads.
SHARE_OF_A_SIDE = 0.2
#: Number of gated rows to choose beside the others: those that are best among themselves.
LIMIT_OF_GATED = 16
#: Least gain in mean utility for which a row is added.
_LEAST_GAIN = 1e-5


def shortlist(costs: CostTable, family: ScenarioRange, limit: int | None = None) -> Ints:
    """(n,) at most ``limit`` rows of the table, in table order; by default 48, or 60 where there are frame strides.

    The fastest device-only row is always among them. Gated rows come on top, 16 at most.
    """
    if costs.gates is None:
        return _without_gates(costs, family, limit)
    plain = np.flatnonzero(~costs.space.gated)
    chosen = plain[_without_gates(costs.take(plain), family, limit)]
    gated = np.flatnonzero(costs.space.gated)
    gated = gated[~dominated(costs.take(gated))]
    best = _covering(_utilities(costs.take(gated), family), LIMIT_OF_GATED, np.zeros(0, np.int64))
    return np.sort(np.concatenate((chosen, gated[best])))


def _without_gates(costs: CostTable, family: ScenarioRange, limit: int | None) -> Ints:
    if costs.longest_stride == 1:
        return np.sort(_covering(_utilities(costs, family), limit or LIMIT, _fastest_local(costs)))
    limit = limit or LIMIT_OF_STRIDES
    kept = np.flatnonzero(~dominated(costs))
    few = costs.take(kept)
    utility, chosen = _utilities(few, family), _fastest_local(few)
    for side in (few.space.device_only, few.space.full_offload):
        # controllers of one side, such as device-only, need the best of it
        rows = np.flatnonzero(side)
        start = np.flatnonzero(np.isin(rows, chosen))
        found = rows[_covering(utility[:, rows], int(limit * SHARE_OF_A_SIDE), start)]
        chosen = np.union1d(chosen, found)
    return kept[np.sort(_covering(utility, limit, chosen))]


def _fastest_local(costs: CostTable) -> Ints:
    """The fastest device-only row; no row where the device answers nothing alone."""
    return costs.local_frontier[:1]


def _covering(utility: Floats, limit: int, chosen: Ints) -> Ints:
    """(n,) columns of ``utility`` (conditions, C): the ``chosen`` ones, filled up to ``limit`` by greedy coverage."""
    found = chosen.tolist()
    best = utility[:, found].max(axis=1, initial=-np.inf)
    while len(found) < min(limit, utility.shape[1]):
        mean = np.maximum(best[:, None], utility).mean(axis=0)
        row = int(mean.argmax())
        if mean[row] - best.mean() < _LEAST_GAIN:
            break
        found.append(row)
        best = np.maximum(best, utility[:, row])
    return np.array(found, dtype=np.int64)


def _utilities(costs: CostTable, family: ScenarioRange) -> Floats:
    """(conditions, C) utility of each row, under usual conditions and on narrow links."""
    return np.concatenate((usual_utility(costs, family), row_utility(costs, _narrow(family), family.utility)))


def usual_utility(costs: CostTable, family: ScenarioRange) -> Floats:
    """(conditions, C) utility per frame of each row under random conditions of a range, as ``row_utility``."""
    return row_utility(costs, _usual(family), family.utility)


def row_utility(costs: CostTable, state: SystemState, utility: Utility) -> Floats:
    """(B, C) utility per frame of each row if it is decided for every frame and the predicted latency is right."""
    return over_paths(costs, lambda paths: _path_utility(paths, state, utility))


def _path_utility(costs: CostTable, state: SystemState, utility: Utility) -> Floats:
    """(B, C) where no row is gated."""
    prediction = predict(costs, state, state.uplink_bps[:, :1])
    energy = utility.energy_j(prediction.head_s, prediction.transmit_s[:, :, 0])
    on_time = prediction.total_s[:, :, 0] <= state.deadline_s[:, None]
    own = utility.of(costs.accuracy[None], on_time, energy, np.zeros((1, 1), bool))
    if costs.lagged_accuracy is None:
        return own
    answer_frames = prediction.total_s[:, :, 0] / state.capture_period_s[:, None]
    per_frame = (own + skipped_score(costs, answer_frames)) / costs.stride
    busy = np.maximum(prediction.head_s, prediction.transmit_s[:, :, 0]) / state.capture_period_s[:, None]
    served = np.minimum(costs.stride / np.maximum(busy, 1e-9), 1.0)
    return np.asarray(served * per_frame - (1.0 - served) * utility.drop_penalty)


def dominated(costs: CostTable) -> Bools:
    """(C,) rows to which another row of the same frame stride is at least equal in accuracy, times and bytes, and
    better in one of them or earlier in the table; expectations count, where rows are gated."""
    paths = costs.paths
    means = [costs.mean(column) for column in (paths.head_s, paths.payload_bytes, paths.mec_s)]
    columns = np.stack((-costs.accuracy, *means), axis=1)
    dominated = np.zeros(len(costs), dtype=np.bool_)
    for stride in np.unique(costs.space.frame_stride):
        rows = np.flatnonzero(costs.space.frame_stride == stride)
        for row in rows:
            others = rows[rows != row]
            as_good = (columns[others] <= columns[row]).all(axis=1)
            better = (columns[others] < columns[row]).any(axis=1) | (others < row)
            dominated[row] = (as_good & better).any()
    return dominated


def _narrow(family: ScenarioRange) -> SystemState:
    """Random states of the range on narrow links, of an idle device, link and MEC: (narrow,) each."""
    rng = np.random.default_rng(_SEED + 1)

    def drawn(bounds: tuple[float, float]) -> Floats:
        return _log_uniform(rng, bounds, _NARROW)

    return idle_state(
        deadline_s=drawn(family.deadline_s),
        capture_period_s=1.0 / drawn(family.fps),
        device_slowdown=drawn(family.device_slowdown),
        mec_slowdown=drawn(family.mec_slowdown),
        mec_wait_s=drawn(family.rtt_s),
        uplink_bps=drawn(_NARROW_BPS),
    )


def _log_uniform(rng: np.random.Generator, bounds: tuple[float, float], count: int) -> Floats:
    low, high = np.log(bounds)
    return np.asarray(np.exp(rng.uniform(low, high, count)))


def _usual(family: ScenarioRange) -> SystemState:
    """Random states of the range, (conditions,) each."""
    rng = np.random.default_rng(_SEED)
    zeros, counts = np.zeros(_CONDITIONS), np.zeros(_CONDITIONS, dtype=np.int64)
    no_row = np.full(_CONDITIONS, NO_ROW)
    history = np.zeros((_CONDITIONS, UPLINK_HISTORY))

    def log_uniform(bounds: tuple[float, float]) -> Floats:
        return _log_uniform(rng, bounds, _CONDITIONS)

    deadline = log_uniform(family.deadline_s)
    queue = deadline * rng.uniform(0.0, 0.3, _CONDITIONS) * rng.integers(0, 2, _CONDITIONS)
    device_load = rng.uniform(*family.device_load_frac, _CONDITIONS)
    return SystemState(
        deadline_s=deadline,
        capture_period_s=1.0 / log_uniform(family.fps),
        frame_age_s=deadline * rng.uniform(0.0, 0.5, _CONDITIONS) * rng.integers(0, 2, _CONDITIONS),
        uplink_bps=np.repeat(log_uniform(_UPLINK_BPS)[:, None], UPLINK_HISTORY, axis=1),
        uplink_sample_bytes=history,
        uplink_sample_age_s=history,
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
        replied_row=no_row,
        replied_s=zeros,
        waiting_row=no_row,
        waiting_s=zeros,
        link_up=np.ones(_CONDITIONS, dtype=np.bool_),
        on_time_frac=zeros,
        fallback_frac=zeros,
    )
