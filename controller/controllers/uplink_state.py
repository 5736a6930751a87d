"""Follows the bandwidth state of an uplink: the level and spread of the samples since the last change point.

Bayesian change-point detection on the uplink samples decides when the state has changed, so that noise alone does not
change it. ``edgent-dynamic`` and ``oboe`` look up their maps with it.
"""

from __future__ import annotations

import numpy as np

from controller.controllers.bandwidth_states import BandwidthStates
from controller.controllers.changepoint import ChangeDetector
from controller.predict.uplink import FLOOR_BPS
from controller.records import UPLINK_HISTORY, Bools, SystemState

#: The state of a run is looked up again until the run has this many values, because its mean still moves.
_SETTLED = 5


class UplinkState:
    """Owns, per row of the batch: the posterior of the detector, the number of uplink samples that it has used, and the
    present state.

    ``log_bps`` (B,) is the level, a natural logarithm of bit/s; ``spread`` (B,) is the class of ``states``.
    """

    def __init__(self, states: BandwidthStates, batch: int, hazard: float, threshold: float) -> None:
        self._states = states
        self._detector = ChangeDetector(states.prior, batch, hazard, threshold)
        self._taken = np.zeros(batch, dtype=np.int64)
        self._begun = np.zeros(batch, dtype=np.bool_)
        self.log_bps = np.zeros(batch)
        self.spread = np.zeros(batch, dtype=np.int64)

    def reset(self, rows: Bools) -> None:
        """Forget the past of the given rows (B,)."""
        self._detector.reset(rows)
        self._taken[rows] = 0
        self._begun[rows] = False

    def update(self, state: SystemState) -> None:
        """Take the new samples, oldest first, and look the state up where it changed or is young."""
        first = ~self._begun  # the history is never empty: at first it holds a guess
        new = np.clip(state.uplink_sample_count - self._taken, first, UPLINK_HISTORY)
        self._taken, self._begun[:] = np.array(state.uplink_sample_count), True
        for back in range(int(new.max()), 0, -1):
            seen = new >= back
            changed = self._detector.update(np.log(np.maximum(state.uplink_bps[:, back - 1], FLOOR_BPS)), seen)
            look_up = seen & (changed | (self._detector.run_length < _SETTLED))
            if look_up.any():
                self.log_bps = np.where(look_up, self._detector.mean, self.log_bps)
                self.spread = np.where(look_up, self._states.spread_class(self._detector.std), self.spread)
