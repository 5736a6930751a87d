"""What if the link is known to be down? A decision that needs the MEC is replaced before it is carried out."""

from __future__ import annotations

import numpy as np

from controller.base import Controller
from controller.costs import CostTable
from controller.records import Bools, Ints, SystemState


class Guard:
    """Wraps any controller. Its only memory is that of the wrapped one."""

    def __init__(self, inner: Controller, costs: CostTable) -> None:
        self.name = inner.name
        self._inner = inner
        self._costs = costs

    def reset(self, rows: Bools) -> None:
        self._inner.reset(rows)

    def decide(self, state: SystemState) -> Ints:
        """The wrapped decision, or the best local row where that one needs a MEC that does not answer."""
        rows = self._inner.decide(state)
        stranded = ~state.link_up & ~self._costs.space.device_only[rows]
        if not stranded.any():
            return rows
        return np.where(stranded, best_local_row(self._costs, state), rows)


def best_local_row(costs: CostTable, state: SystemState) -> Ints:
    """(B,) the most accurate device-only row predicted to be in time, or the fastest when none is.

    Where there are frame intervals: the one worth most per frame that is also done before the next decision.
    """
    if costs.longest_interval > 1:
        return _most_worth(costs, state)
    frontier = costs.local_frontier  # slower and more accurate from one to the next
    end_s = state.frame_age_s[:, None] + costs.head_s[frontier] * state.device_slowdown[:, None]
    fitting = (end_s <= state.deadline_s[:, None]).sum(axis=1)
    return np.asarray(frontier[np.maximum(fitting - 1, 0)])


def _most_worth(costs: CostTable, state: SystemState) -> Ints:
    rows = np.flatnonzero(costs.space.device_only)
    end_s = state.frame_age_s[:, None] + costs.head_s[rows] * state.device_slowdown[:, None]
    in_time = end_s <= state.deadline_s[:, None]
    kept_up = end_s <= state.frame_interval_s[:, None] * costs.interval[rows]
    value = costs.worth[rows] * in_time + 1.0 * (in_time & kept_up)  # in time first of all, then at pace, then worth
    quickest = rows[np.lexsort((-costs.interval[rows], costs.head_s[rows]))[0]]
    return np.asarray(np.where(in_time.any(axis=1), rows[value.argmax(axis=1)], quickest))
