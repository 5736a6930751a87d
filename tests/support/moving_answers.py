"""Answers that move on in a simulation: a forecaster that marks them, and recorded scores of what it marked."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from controller.forecast import Shown
from runtime.bundles.recorded import Recorded
from support.simulated import SimCompute, Simulation
from support.stream import stream_recorded

MOVED = "moved"


class Moved(NamedTuple):
    """What became of an answer [variant, sample]."""

    frame: int
    answer: Any
    speeds: NDArray[np.float32] | None = None  # (variants, samples)

    @property
    def track_ids(self) -> tuple[int, ...]:
        return (self.frame,)

    @property
    def speed(self) -> float | None:
        return None if self.speeds is None else float(self.speeds[tuple(self.answer)])

    def at(self, frame: int) -> Shown:
        assert frame > self.frame, "a forecast is of a later frame"
        return Shown([*self.answer, MOVED], (self.frame,))


class Mover:
    """A forecaster that only marks answers; as a tracker, it takes no answer to an older frame than the last."""

    def __init__(self, speeds: NDArray[np.float32] | None = None) -> None:
        self.newest, self.speeds = -1, speeds

    def add(self, frame: int, prediction: Any) -> Moved | None:
        if frame <= self.newest:
            return None
        self.newest = frame
        return Moved(frame, prediction, self.speeds)

    def add_part(self, frame: int, prediction: Any, kept: Sequence[int]) -> Moved | None:
        return self.add(frame, prediction)


class MovedCompute(SimCompute):
    """Knows what marked answers score."""

    def score(self, prediction: Any, truth: Any) -> float:
        assert self._recorded is not None
        if prediction[-1] != MOVED:
            return super().score(prediction, truth)
        variant, sample, _ = prediction
        moved = self._recorded.with_forecast()
        return float(moved.lagged_score((truth - sample) % self.samples)[variant, sample])


class MovedSimulation(Simulation):
    compute_type = MovedCompute


def recorded_with_forecast() -> Recorded:
    """Forecasts lose less than answers that stand still, and each sample differs."""
    recorded = stream_recorded()
    assert recorded.lagged is not None
    better = np.rint(255 * (0.3 * recorded.score + 0.7 * recorded.lagged)).astype(np.float32) / np.float32(255)
    speed = np.arange(recorded.score.size).reshape(recorded.score.shape) % 60 / 100
    speed[::2, ::3] = np.nan
    return dataclasses.replace(recorded, lagged_forecast=better, tracked_speed=speed.astype(np.float32))
