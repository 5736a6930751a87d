"""The shortlist: the candidates that controllers choose from, out of all legal decisions.

Hundreds of decisions are legal, and most are never the best one. The shortlist is the small set that loses least: over
many random conditions of a scenario range, rows are added one by one, each time the row that raises the mean of the
best utility most (greedy maximum coverage, within 1 - 1/e of the best set of that size: Nemhauser et al., 1978).

Conditions are those of usual, narrow and fast links (``controller.controllers.conditions``). ``losses`` says what the
choice costs, on conditions that it was not made on.

With frame strides, utility is per frame. A row that takes longer than its stride earns it only for the share of
decisions that the device or the link can serve; without that rule no long stride would ever be chosen. Dominated rows
are left out beforehand.

Gated and cropped rows are added to this list: turning a technique on takes no row away.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from controller.controllers.conditions import ALL_LINKS, USUAL, drawn
from controller.costs import CostTable
from controller.predict.expectation import over_paths, skipped_score
from controller.predict.latency import predict
from controller.records import Bools, Floats, Ints, SystemState
from controller.scenario import ScenarioRange
from controller.utility import Utility

#: Number of rows to choose, without and with frame strides.
LIMIT, LIMIT_OF_STRIDES = 48, 72
#: With frame strides: share of these for device-only rows, and the same share for full offloads.
SHARE_OF_A_SIDE = 0.2
#: Number of gated, and of cropped rows to choose beside the others: those that are best among themselves.
LIMIT_OF_MORE = 16
#: Least gain in mean utility for which a row is added.
_LEAST_GAIN = 1e-5


def shortlist(costs: CostTable, family: ScenarioRange, limit: int | None = None) -> Ints:
    """(n,) at most ``limit`` rows of the table, in table order; by default 48, or 72 where there are frame strides.

    The fastest device-only row is always among them. Gated rows come on top, 16 at most, and as many cropped ones with
    those that run the whole picture in their place.
    """
    if costs.space.plain.all():
        return _plain(costs, family, limit)
    plain = np.flatnonzero(costs.space.plain)
    gated = _best_among_themselves(costs, costs.space.gated, family)
    cropped = _best_among_themselves(costs, costs.space.cropped, family)
    chosen = plain[_plain(costs.take(plain), family, limit)]
    return np.unique(np.concatenate((chosen, gated, cropped, costs.whole_row[cropped])))


def _best_among_themselves(costs: CostTable, which: Bools, family: ScenarioRange) -> Ints:
    """(n,) the best of some rows, ``LIMIT_OF_MORE`` at most."""
    rows = np.flatnonzero(which)
    rows = rows[~dominated(costs.take(rows))] if len(rows) else rows
    if not len(rows):
        return rows
    return rows[_covering(_utilities(costs.take(rows), family), LIMIT_OF_MORE, np.zeros(0, np.int64))]


def _plain(costs: CostTable, family: ScenarioRange, limit: int | None) -> Ints:
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
    """(conditions, C) utility of each row, over all kinds of links."""
    return np.concatenate([row_utility(costs, drawn(family, links), family.utility) for links in ALL_LINKS])


def usual_utility(costs: CostTable, family: ScenarioRange) -> Floats:
    """(conditions, C) utility per frame of each row under random conditions of a range, as ``row_utility``."""
    return row_utility(costs, drawn(family, USUAL), family.utility)


@dataclass(frozen=True)
class Loss:
    """By how much the best of some rows is below the best of all, in predicted utility per frame."""

    links: str  # over which conditions were drawn
    mean: float
    p99: float  # 99th percentile


def losses(costs: CostTable, rows: Ints, family: ScenarioRange) -> list[Loss]:
    """What a choice of rows of the table costs, over each kind of links, under conditions that were drawn anew."""
    found = []
    for links in ALL_LINKS:
        utility = row_utility(costs, drawn(family, links, seed=1), family.utility)
        loss = utility.max(axis=1) - utility[:, rows].max(axis=1)
        found.append(Loss(links.name, float(loss.mean()), float(np.quantile(loss, 0.99))))
    return found


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
