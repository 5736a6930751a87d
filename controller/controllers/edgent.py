"""Edgent for a changing uplink: a configuration map with change-point detection (arXiv 1910.05316).

A configuration map, made from recorded traces, gives the row with the highest reward in a bandwidth state. Online,
Bayesian change-point detection on the uplink samples decides when the state has changed. As in later work, the device
runs the first part of the network. (For a static uplink there is Edgent's Algorithm 1:
``controller.controllers.simple.MostAccurate`` over all rows.)

Deadlines and slowdowns differ between devices, so this version of the map differs from the paper in two points:

- A bandwidth state is a level (a step on a logarithmic scale) and a spread class, which is learned from the training
  traces: five quantiles of how far bandwidth strays from its mean between two change points. It does not depend on
  the level, so the map also serves a device that gets a share of a link.
- The key of an entry is the bandwidth state, the current conditions (remaining budget, slowdowns, MEC queue, round
  trip, capture period) in steps of 5 %, and how old the reference of each stream of payloads is. An entry depends on
  its key alone. It is computed when its key first occurs and used until the key changes, so the map is never computed
  in full.
"""

from __future__ import annotations

import enum
import math
from dataclasses import dataclass

import numpy as np

from controller.controllers.bandwidth_states import BandwidthStates, level_index, level_log_bps
from controller.controllers.simple import TIE_S
from controller.controllers.uplink_state import UplinkState
from controller.costs import CostTable
from controller.predict.estimators import recovery
from controller.predict.expectation import due_s, idle_state, is_rescued
from controller.predict.latency import predict
from controller.records import Bools, Floats, Ints, SystemState

#: Conditions are rounded to steps of this factor; the scale is linear below _SMALL_S.
_STEP = 1.05
_SMALL_S = 0.001
_UNKNOWN = np.iinfo(np.int64).min


class _Key(enum.IntEnum):
    """Columns of a key. One more for each stream follows: the column of the costs for the age of its reference."""

    LEVEL = 0
    SPREAD = 1
    BUDGET = 2
    CAPTURE_PERIOD = 3
    SLOWDOWN = 4
    MEC_SLOWDOWN = 5
    MEC_WAIT = 6


@dataclass(frozen=True, slots=True)
class MapTuning:
    """The tunables of ``edgent-dynamic``."""

    margin: float = 0.9  # factor on the bandwidths of a state
    recovery_s: float | None = 10.0  # as in Estimator
    headroom_frac: float = 0.1  # as in Estimator
    hazard: float = 0.02  # probability of a change at each sample
    threshold: float = 0.5  # posterior probability of a change that counts as one
    #: Weight of 1 / latency in the reward. The paper's 1 outweighs all accuracy when latencies are tens of
    #: milliseconds (1 / 20 ms against exp(0.9) - exp(0.8) = 0.23): the fastest row would win under any deadline.
    latency_weight: float = 0.001
    keep_pace: bool = True


class EdgentDynamic:
    """The configuration map with change-point detection.

    Owns, per row of the batch: the bandwidth state, and the current map entry with its key.
    """

    name = "edgent-dynamic"

    def __init__(self, costs: CostTable, states: BandwidthStates, tuning: MapTuning, batch: int) -> None:
        self._costs = costs
        self._states = states
        self._tuning = tuning
        self._uplink = UplinkState(states, batch, tuning.hazard, tuning.threshold)
        self._key = np.full((batch, len(_Key) + costs.streams), _UNKNOWN)
        self._age_of_column = np.concatenate(([0], costs.ages))
        self._row = np.zeros(batch, dtype=np.int64)

    def reset(self, rows: Bools) -> None:
        self._uplink.reset(rows)
        self._key[rows] = _UNKNOWN

    def decide(self, state: SystemState) -> Ints:
        self._uplink.update(state)
        key = self._keys(state)
        met = np.flatnonzero((key != self._key).any(axis=1))
        if len(met):
            self._row[met] = self.entries(key[met])
            self._key[met] = key[met]
        return self._row.copy()

    def _keys(self, state: SystemState) -> Ints:
        """(B, columns) keys of the current entries."""
        key = np.zeros((state.batch, self._key.shape[1]), dtype=np.int64)
        hope = np.log(recovery(state.uplink_age_s, self._tuning.recovery_s))
        key[:, _Key.LEVEL] = level_index(self._uplink.log_bps + hope)
        key[:, _Key.SPREAD] = self._uplink.spread
        key[:, _Key.BUDGET] = _steps(state.deadline_s - state.frame_age_s)
        key[:, _Key.CAPTURE_PERIOD] = _steps(state.capture_period_s)
        key[:, _Key.SLOWDOWN] = _steps(state.device_slowdown)
        key[:, _Key.MEC_SLOWDOWN] = _steps(state.mec_slowdown)
        key[:, _Key.MEC_WAIT] = _steps(state.mec_queue_mean_s + state.rtt_s)
        if state.reference_age is not None:
            key[:, len(_Key) :] = self._costs.column_of_age.take(state.reference_age, mode="clip")
        return key

    def entries(self, key: Ints) -> Ints:
        """(n,) rows of the configuration map under the given keys (n, columns).

        An entry is the row with the highest mean of the reward ``exp(accuracy) + weight / latency``, earned if the
        answer is in time, over the bandwidths of the state. If no row earns any, it is the fastest row on average.
        """
        spread = self._states.deviations[key[:, _Key.SPREAD]]
        level = level_log_bps(key[:, _Key.LEVEL])[:, None]
        uplink_bps = self._tuning.margin * np.exp(level + spread)
        state = idle_state(
            deadline_s=_value(key[:, _Key.BUDGET]),
            capture_period_s=_value(key[:, _Key.CAPTURE_PERIOD]),
            device_slowdown=_value(key[:, _Key.SLOWDOWN]),
            mec_slowdown=_value(key[:, _Key.MEC_SLOWDOWN]),
            mec_wait_s=_value(key[:, _Key.MEC_WAIT]),
            uplink_bps=uplink_bps[:, 0],
            reference_age=self._age_of_column[key[:, len(_Key) :]] if self._costs.streams else None,
        )
        predicted = predict(self._costs, state, uplink_bps)
        due = due_s(self._costs, state, is_rescued(self._costs, state, predicted.head_s))
        earned = np.exp(self._costs.accuracy_per_frame)[:, None] + self._tuning.latency_weight / predicted.total_s
        reward = (earned * (predicted.total_s <= (1.0 - self._tuning.headroom_frac) * due[:, :, None])).mean(axis=2)
        busy = np.maximum(predicted.head_s, predicted.transmit_s.mean(axis=2))
        if self._tuning.keep_pace:
            reward *= busy <= state.capture_period_s[:, None] * self._costs.stride
        order = predicted.total_s.mean(axis=2)
        if self._costs.longest_stride > 1:  # of equally fast rows, the one that delays the next decision least
            waits = np.maximum(busy / state.capture_period_s[:, None] / self._costs.stride - 1.0, 0.0)
            order = order + TIE_S * waits
        fastest = order.argmin(axis=1)
        return np.asarray(np.where(reward.any(axis=1), reward.argmax(axis=1), fastest))


def _steps(value: Floats) -> Ints:
    """(B,) step of each value (B,) on a scale that is linear below _SMALL_S and logarithmic above."""
    return np.asarray(np.rint(np.log1p(np.maximum(value, 0.0) / _SMALL_S) / math.log(_STEP)), dtype=np.int64)


def _value(step: Ints) -> Floats:
    """(B,) value in the middle of each step (B,)."""
    return np.asarray(_SMALL_S * np.expm1(step * math.log(_STEP)))
