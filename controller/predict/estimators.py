"""Bandwidth estimates from the uplink samples of a state.

Pure functions from a history (B, H) in bit/s, newest first, to one estimate per state (B,). An ``Estimator`` is one of
them with its window and margins: these are tuned for every classical controller that predicts.
"""

from __future__ import annotations

import enum
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from controller.errors import UsageError
from controller.predict.uplink import FLOOR_BPS
from controller.records import UPLINK_HISTORY, Floats, SystemState

_LOW_PERCENTILE = 25.0
#: Largest factor by which the age of the newest sample raises an estimate.
_MAX_RECOVERY = 1_000.0


class Kind(enum.StrEnum):
    """How a window of samples becomes one number."""

    LAST = "last"
    HARMONIC = "harmonic"
    MINIMUM = "minimum"
    EWMA = "ewma"
    PERCENTILE = "percentile"


def last(history_bps: Floats, window: int) -> Floats:
    """The newest sample; the window is ignored."""
    return np.asarray(history_bps[:, 0])


def harmonic_mean(history_bps: Floats, window: int) -> Floats:
    """Inverse of the mean time per bit: slow samples weigh more."""
    per_bit = 1.0 / np.maximum(history_bps[:, :window], FLOOR_BPS)
    return np.asarray(1.0 / per_bit.mean(axis=1))


def minimum(history_bps: Floats, window: int) -> Floats:
    """The least sample of the window."""
    return np.asarray(history_bps[:, :window].min(axis=1))


def ewma(history_bps: Floats, window: int) -> Floats:
    """Exponentially weighted mean with alpha = 2 / (window + 1), over the whole history."""
    alpha = 2.0 / (window + 1)
    weight = (1.0 - alpha) ** np.arange(history_bps.shape[1])
    return np.asarray(history_bps @ (weight / weight.sum()))


def low_percentile(history_bps: Floats, window: int) -> Floats:
    """Lower quartile of the window."""
    return np.asarray(np.percentile(history_bps[:, :window], _LOW_PERCENTILE, axis=1))


_ESTIMATE: dict[Kind, Callable[[Floats, int], Floats]] = {
    Kind.LAST: last,
    Kind.HARMONIC: harmonic_mean,
    Kind.MINIMUM: minimum,
    Kind.EWMA: ewma,
    Kind.PERCENTILE: low_percentile,
}


@dataclass(frozen=True, slots=True)
class Estimator:
    """One way to estimate the uplink."""

    kind: Kind = Kind.EWMA
    window: int = 3  # samples
    margin: float = 0.9  # factor on the estimate; below 1 is careful
    recovery_s: float | None = 10.0  # without a new sample the estimate doubles once per this time; None: never
    headroom_frac: float = 0.1  # share of the remaining budget that a prediction must leave free, for load changes

    def __post_init__(self) -> None:
        if not 1 <= self.window <= UPLINK_HISTORY:
            raise UsageError(f"estimator window: got {self.window}; expected 1 to {UPLINK_HISTORY} samples")
        if not 0 < self.margin < float("inf"):
            raise UsageError(f"estimator margin: got {self.margin}; expected a factor above 0")
        if self.recovery_s is not None and not self.recovery_s > 0:
            raise UsageError(f"estimator recovery_s: got {self.recovery_s}; expected seconds above 0, or null")
        if not 0 <= self.headroom_frac < 1:
            raise UsageError(f"estimator headroom_frac: got {self.headroom_frac}; expected 0 or more, below 1")

    def of(self, state: SystemState) -> Floats:
        """(B,) bit/s.

        Only sending shows bandwidth, so without recovery a controller that went local would stay local.
        """
        estimate = _ESTIMATE[self.kind](state.uplink_bps, self.window) * self.margin
        return estimate * recovery(state.uplink_age_s, self.recovery_s)


def recovery(age_s: Floats, recovery_s: float | None) -> Floats:
    """(B,) factor on an estimate whose newest sample is ``age_s`` (B,) old."""
    if recovery_s is None:
        return np.ones_like(age_s)
    return np.asarray(np.exp2(np.minimum(age_s / recovery_s, np.log2(_MAX_RECOVERY))))
