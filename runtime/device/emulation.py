"""Runs heads, each for as long as an emulated slow device takes.

A slow device is emulated on a fast machine: the computation is real, then the device idles until the profiled time x
slowdown / (1 - load of that second) has passed, times random noise, because no two heads take equally long. Only the
idling uses these numbers. A device plans with the times that it measured.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from controller.costs import CostTable
from controller.loads import LOAD_STEP_S
from controller.scenario import HEAD_NOISE_FRAC, Scenario
from runtime.device.compute import Compute, Head, Pause
from runtime.device.outcomes import Job
from runtime.device.telemetry import DeviceTelemetry
from runtime.link.link import Clock
from runtime.link.senders import Draft


class Emulation:
    """Owns the random noise. Times are seconds since the first capture."""

    def __init__(self, costs: CostTable, scenario: Scenario) -> None:
        self._head_s = costs.paths.head_s
        self._slowdown = scenario.device_slowdown
        self._load_frac = scenario.device_load()
        self._noise = np.random.default_rng(scenario.seed)

    def ended_early_s(self, lasts_s: float, row: int, path: int) -> float:
        """Seconds that the head of ``row``, which was to last so long, takes up to where the path ends."""
        return lasts_s if path == row else lasts_s * float(self._head_s[path] / self._head_s[row])

    def slowdown_at(self, elapsed_s: float) -> float:
        """Device time / profiled time."""
        second = min(max(int(elapsed_s / LOAD_STEP_S), 0), len(self._load_frac) - 1)
        return self._slowdown / (1.0 - float(self._load_frac[second]))

    def head_s(self, path: int, elapsed_s: float) -> float:
        """Seconds that the head of a path takes which starts then; 0 if no slow device is emulated."""
        slowdown = self.slowdown_at(elapsed_s)
        if slowdown <= 1.0:
            return 0.0
        return float(self._head_s[path]) * slowdown * math.exp(HEAD_NOISE_FRAC * self._noise.standard_normal())


class HeadRunner:
    """Runs heads one at a time. Owns the time that fallbacks took from them.

    What a payload may refer to depends on which replies have come when it is encoded. A slow device encodes at the end
    of its head, so an emulated one idles before that, not after it.
    """

    def __init__(
        self,
        compute: Compute,
        costs: CostTable,
        emulation: Emulation,
        telemetry: DeviceTelemetry,
        clock: Clock,
        poll: Pause,
        idle: Callable[[float], bool],  # wait until that time and poll; False if the device stops for good
    ) -> None:
        self._compute, self._costs, self._decisions = compute, costs, costs.space.decisions
        self._emulation, self._telemetry = emulation, telemetry
        self._clock, self._poll, self._idle = clock, poll, idle
        self._start_s: float | None = None
        self._preempted_s = 0.0  # seconds given to fallbacks so far
        self._encoding_s = 0.0  # that the last draft took

    def start(self, start_s: float) -> None:
        """The first frame is captured at this time; the emulated load begins here."""
        self._start_s = start_s

    def run(self, job: Job, row: int, draft: Draft | None = None) -> Head | None:
        """Run the head of a row on the job's frame. Its time, without that of fallbacks, is added to ``job.busy_s``.

        ``draft``: encodes the payload if it may refer to an earlier one. None if the device stops for good meanwhile.
        """
        index, decision = job.frame.source_index, self._decisions[row]
        # The head of a crop begins with the look for its window; a fallback of the same frame runs the whole picture.
        aim = job.aim if decision.crop else None
        window = None if aim is None else aim.window
        began_s, preempted_s = self._clock() if aim is None else job.aimed_s, self._preempted_s
        if draft is None:
            head = self._compute.head(index, decision, self._poll, window=window)
            path = self._costs.path(row, head.early_exit)
            lasts_s = self._emulation.head_s(path, self._elapsed_s(began_s))
        else:
            lasts_s = self._emulation.head_s(row, self._elapsed_s(began_s))
            encode_as = partial(self._encode_late, draft, began_s, preempted_s, lasts_s)
            head = self._compute.head(index, decision, self._poll, encode_as)
            path = self._costs.path(row, head.early_exit)
            lasts_s = self._emulation.ended_early_s(lasts_s, row, path)
        took_s = self._finish(began_s, preempted_s, lasts_s)
        if took_s is None:
            return None
        job.busy_s += took_s
        self._telemetry.on_head(path, took_s)
        return head

    def _encode_late(
        self, draft: Draft, began_s: float, preempted_s: float, lasts_s: float, array: NDArray[Any]
    ) -> bytes:
        """Encode so late that the head ends when it should, if encoding takes as long as the last time."""
        self._finish(began_s, preempted_s, lasts_s - self._encoding_s)
        encoding_s = self._clock()
        payload = draft.encode(array)
        self._encoding_s = self._clock() - encoding_s
        return payload

    def slowdown_at(self, now_s: float) -> float:
        """Time on the emulated device / time that a computation takes here; 1 if no slow device is emulated."""
        return max(self._emulation.slowdown_at(self._elapsed_s(now_s)), 1.0)

    def lengthen(self, job: Job, began_s: float) -> bool:
        """Idle until a computation that has just ended has taken as long as on the emulated device.

        Its time is added to ``job.busy_s``. False if the device stops for good meanwhile.
        """
        lasts_s = self.slowdown_at(began_s) * (self._clock() - began_s)
        took_s = self._finish(began_s, self._preempted_s, lasts_s)
        job.busy_s += took_s or 0.0
        return took_s is not None

    def preempted(self, took_s: float) -> None:
        """A fallback took this long; the head that it preempted ends that much later."""
        self._preempted_s += took_s

    def _finish(self, began_s: float, preempted_s: float, lasts_s: float) -> float | None:
        """Idle until ``lasts_s`` have passed since the start, fallbacks not counted.

        ``preempted_s``: value of ``_preempted_s`` at the start. Returns the seconds that it took without fallbacks, or
        None if the device stops for good.
        """
        while self._clock() < (end_s := began_s + lasts_s + self._preempted_s - preempted_s):
            if not self._idle(end_s):
                return None
        return self._clock() - began_s - (self._preempted_s - preempted_s)

    def _elapsed_s(self, now_s: float) -> float:
        return now_s - (self._start_s if self._start_s is not None else now_s)
