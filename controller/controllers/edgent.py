"""How does Edgent decide when the uplink changes? (arXiv 1910.05316; the device runs the front, as in all later work.)

A configuration map, made from recorded traces, says which row has the highest reward in a bandwidth state. Online,
Bayesian change-point detection on the uplink samples decides when the state has changed. (For a static network there
is Algorithm 1: ``controller.controllers.simple.MostAccurate`` over all rows.)

What this version of the map adds, since deadlines and slowdowns differ between the devices that it serves:

- A bandwidth state is a level (a step on a logarithmic scale) and a spread class. A spread class is what the
  training traces teach: how far bandwidth strays from its mean between two change points, as five quantiles.
  It does not depend on the level, so the map also serves a device that gets a share of a link.
- The key of an entry is the state with the conditions of the moment (remaining budget, slowdowns, MEC queue,
  round trip, frame interval) in steps of 5 %. An entry is a function of its key alone, computed when the
  key is met and held until the key changes: the map is never written out in full.
"""

from __future__ import annotations

import enum
import math
from dataclasses import dataclass

import numpy as np

from controller.controllers.bandwidth_states import BandwidthStates, level_index, level_log_bps
from controller.controllers.changepoint import ChangeDetector
from controller.controllers.simple import TIE_S
from controller.costs import CostTable
from controller.predict.estimators import recovery
from controller.predict.expectation import due_s, idle_state, is_rescued
from controller.predict.latency import predict
from controller.predict.uplink import FLOOR_BPS
from controller.records import UPLINK_HISTORY, Bools, Floats, Ints, SystemState

#: Conditions are told apart in steps of this factor, waiting times only above _SMALL_S.
_STEP = 1.05
_SMALL_S = 0.001
#: A young run is looked up again until its mean has settled.
_SETTLED = 5
_UNKNOWN = np.iinfo(np.int64).min


class _Key(enum.IntEnum):
    """Columns of a key."""

    LEVEL = 0
    SPREAD = 1
    BUDGET = 2
    INTERVAL = 3
    SLOWDOWN = 4
    MEC_SLOWDOWN = 5
    MEC_WAIT = 6


@dataclass(frozen=True, slots=True)
class MapTuning:
    """What is tuned in ``edgent-dynamic``."""

    margin: float = 0.9  # factor on the bandwidths of a state
    recovery_s: float | None = 10.0  # as in Estimator
    headroom_frac: float = 0.1  # as in Estimator
    hazard: float = 0.02  # probability of a change at each sample
    threshold: float = 0.5  # posterior probability of a change that counts as one
    #: Of 1 / latency in the reward. The paper's 1 outweighs all accuracy when latencies are tens of milliseconds
    #: (1 / 20 ms against exp(0.9) - exp(0.8) = 0.23), so that the fastest row wins whatever the deadline.
    latency_weight: float = 0.001
    keep_pace: bool = True


class EdgentDynamic:
    """The configuration map with change-point detection.

    Owns, per row of the batch: the detector's posterior, how many uplink samples it has taken in, the bandwidth
    state that was looked up, and the map entry in force with its key.
    """

    name = "edgent-dynamic"

    def __init__(self, costs: CostTable, states: BandwidthStates, tuning: MapTuning, batch: int) -> None:
        self._costs = costs
        self._states = states
        self._tuning = tuning
        self._detector = ChangeDetector(states.prior, batch, tuning.hazard, tuning.threshold)
        self._taken = np.zeros(batch, dtype=np.int64)
        self._log_bps = np.zeros(batch)
        self._spread = np.zeros(batch, dtype=np.int64)
        self._key = np.full((batch, len(_Key)), _UNKNOWN)
        self._row = np.zeros(batch, dtype=np.int64)

    def reset(self, rows: Bools) -> None:
        self._detector.reset(rows)
        self._taken[rows] = 0
        self._key[rows] = _UNKNOWN

    def decide(self, state: SystemState) -> Ints:
        self._take_samples(state)
        key = self._keys(state)
        met = np.flatnonzero((key != self._key).any(axis=1))
        if len(met):
            self._row[met] = self.entries(key[met])
            self._key[met] = key[met]
        return self._row.copy()

    def _take_samples(self, state: SystemState) -> None:
        """Feed the detector what is new, oldest first; look the state up where it changed or is still young."""
        first = self._key[:, _Key.LEVEL] == _UNKNOWN  # the history is never empty: it holds at least a guess
        new = np.clip(state.uplink_sample_count - self._taken, first, UPLINK_HISTORY)
        self._taken = np.array(state.uplink_sample_count)
        for back in range(int(new.max()), 0, -1):
            seen = new >= back
            changed = self._detector.update(np.log(np.maximum(state.uplink_bps[:, back - 1], FLOOR_BPS)), seen)
            look_up = seen & (changed | (self._detector.run_length < _SETTLED))
            if look_up.any():
                self._log_bps = np.where(look_up, self._detector.mean, self._log_bps)
                self._spread = np.where(look_up, self._states.spread_class(self._detector.std), self._spread)

    def _keys(self, state: SystemState) -> Ints:
        """(B, columns) of the entries that hold now."""
        key = np.empty((state.batch, len(_Key)), dtype=np.int64)
        hope = np.log(recovery(state.uplink_age_s, self._tuning.recovery_s))
        key[:, _Key.LEVEL] = level_index(self._log_bps + hope)
        key[:, _Key.SPREAD] = self._spread
        key[:, _Key.BUDGET] = _steps(state.deadline_s - state.frame_age_s)
        key[:, _Key.INTERVAL] = _steps(state.capture_period_s)
        key[:, _Key.SLOWDOWN] = _steps(state.device_slowdown)
        key[:, _Key.MEC_SLOWDOWN] = _steps(state.mec_slowdown)
        key[:, _Key.MEC_WAIT] = _steps(state.mec_queue_mean_s + state.rtt_s)
        return key

    def entries(self, key: Ints) -> Ints:
        """(n,) rows of the configuration map under the given keys (n, columns): a function of the keys alone.

        The row with the highest mean reward ``exp(accuracy) + weight / latency``, which is earned where the answer
        is in time, over the bandwidths of the state. Where no row earns any: the quickest on average.
        """
        spread = self._states.deviations[key[:, _Key.SPREAD]]
        level = level_log_bps(key[:, _Key.LEVEL])[:, None]
        uplink_bps = self._tuning.margin * np.exp(level + spread)
        state = idle_state(
            deadline_s=_value(key[:, _Key.BUDGET]),
            capture_period_s=_value(key[:, _Key.INTERVAL]),
            device_slowdown=_value(key[:, _Key.SLOWDOWN]),
            mec_slowdown=_value(key[:, _Key.MEC_SLOWDOWN]),
            mec_wait_s=_value(key[:, _Key.MEC_WAIT]),
            uplink_bps=uplink_bps[:, 0],
        )
        predicted = predict(self._costs, state, uplink_bps)
        due = due_s(self._costs, state, is_rescued(self._costs, state, predicted.head_s))
        earned = np.exp(self._costs.worth)[:, None] + self._tuning.latency_weight / predicted.total_s
        reward = (earned * (predicted.total_s <= (1.0 - self._tuning.headroom_frac) * due[:, :, None])).mean(axis=2)
        busy = np.maximum(predicted.head_s, predicted.transmit_s.mean(axis=2))
        if self._tuning.keep_pace:
            reward *= busy <= state.capture_period_s[:, None] * self._costs.interval
        order = predicted.total_s.mean(axis=2)
        if self._costs.longest_interval > 1:  # of rows that are equally quick, the one that others wait for least
            waits = np.maximum(busy / state.capture_period_s[:, None] / self._costs.interval - 1.0, 0.0)
            order = order + TIE_S * waits
        quickest = order.argmin(axis=1)
        return np.asarray(np.where(reward.any(axis=1), reward.argmax(axis=1), quickest))


def _steps(value: Floats) -> Ints:
    """(B,) step of a quantity on a scale that is linear below _SMALL_S and logarithmic above."""
    return np.asarray(np.rint(np.log1p(np.maximum(value, 0.0) / _SMALL_S) / math.log(_STEP)), dtype=np.int64)


def _value(step: Ints) -> Floats:
    """The quantity in the middle of a step."""
    return np.asarray(_SMALL_S * np.expm1(step * math.log(_STEP)))
