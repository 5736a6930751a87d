"""Under which conditions does a device run? One record for twin, live backend and daemon.

A ``Scenario`` is one concrete episode; a ``ScenarioRange`` is the family that episodes are drawn from, so that one
policy learns to serve all of it. ``controller.loads`` has the loads that others put on device and MEC.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from controller.errors import UsageError
from controller.loads import LOAD_STEP_S, MAX_LOAD_FRAC, MAX_LOAD_STEPS, load_series
from controller.predict.uplink import TraceBank
from controller.records import Floats
from controller.utility import Utility

#: Frames that may wait on a device, and requests that may wait for the MEC's reply, unless something else is set.
QUEUE_LIMIT = 2
MAX_IN_FLIGHT = 4
MAX_COUNT = 1_000  # of either
#: Standard deviation of a device's log time around the profiled time.
HEAD_NOISE_FRAC = 0.03


@dataclass(frozen=True, slots=True)
class Limits:
    """Which numbers make sense."""

    most: float = math.inf  # itself included
    above_zero: bool = False  # zero itself makes no sense

    def hold(self, value: float) -> bool:
        """Whether the value makes sense. NaN and infinity never do."""
        return math.isfinite(value) and 0 <= value <= self.most and not (self.above_zero and value == 0)

    def check(self, name: str, value: float) -> None:
        """UsageError when the value makes no sense."""
        if not self.hold(value):
            raise UsageError(f"{name}: got {value}; expected {self}")

    def __str__(self) -> str:
        least = "above 0" if self.above_zero else "0 or more"
        return f"a number {least}" + (f", at most {self.most:g}" if self.most < math.inf else "")


_POSITIVE, _NOT_NEGATIVE = Limits(above_zero=True), Limits()
_SCENARIO_LIMITS = {
    "fps": _NOT_NEGATIVE,  # 0: as fast as frames are answered; only a device can do that
    "deadline_s": _POSITIVE,
    "device_slowdown": _POSITIVE,
    "mec_slowdown": _POSITIVE,
    "device_load_frac": Limits(MAX_LOAD_FRAC),
    "mec_load_frac": Limits(MAX_LOAD_FRAC),
    "rtt_s": _NOT_NEGATIVE,
    "trace_index": _NOT_NEGATIVE,
    "trace_start_s": _NOT_NEGATIVE,
    "uplink_share_frac": Limits(1.0, above_zero=True),
    "frames": _POSITIVE,
    "first_sample": _NOT_NEGATIVE,
    "seed": _NOT_NEGATIVE,
}
#: Counts of a range and their upper bounds. The twin allocates memory for each.
_RANGE_COUNTS = {"frames": 10_000_000, "queue_limit": MAX_COUNT, "max_in_flight": MAX_COUNT}


@dataclass(frozen=True, slots=True)
class Scenario:
    """One episode."""

    fps: float = 10.0
    deadline_s: float = 0.1  # capture to answer
    device_slowdown: float = 50.0  # device time / profiled time: what emulates a weak device
    mec_slowdown: float = 4.0  # MEC time / profiled time: the MEC gives this device a share of a core
    device_load_frac: float = 0.0  # mean share of the device that other tasks take
    mec_load_frac: float = 0.0  # mean utilisation of the MEC by other devices
    rtt_s: float = 0.01  # round trip without payload
    trace_index: int = 0  # into the bank of traces
    trace_start_s: float = 0.0
    uplink_share_frac: float = 1.0  # of the trace's bandwidth: sensors share a cell
    frames: int = 300
    first_sample: int = 0
    seed: int = 0

    def __post_init__(self) -> None:
        for name, limits in _SCENARIO_LIMITS.items():
            if not limits.hold(value := getattr(self, name)):
                limits.check(f"scenario {name}", value)

    def device_load(self) -> Floats:
        """Share of the device that other tasks take, at each second from the start; the last value goes on."""
        return load_series(self.device_load_frac, self.load_steps, self.device_load_seed)

    def mec_load(self) -> Floats:
        """Utilisation of the MEC by other devices, at each second from the start; the last value goes on."""
        return load_series(self.mec_load_frac, self.load_steps, self.mec_load_seed)

    @property
    def device_load_seed(self) -> int:
        return 2 * self.seed

    @property
    def mec_load_seed(self) -> int:
        return 2 * self.seed + 1

    @property
    def load_steps(self) -> int:
        """Number of seconds for which the loads are drawn."""
        return min(math.ceil(self.frames / (self.fps or 1.0) / LOAD_STEP_S) + 1, MAX_LOAD_STEPS)


@dataclass(frozen=True, slots=True)
class ScenarioRange:
    """Bounds that episodes are drawn from: log-uniform for ratios and times, uniform for loads."""

    fps: tuple[float, float] = (5.0, 30.0)
    deadline_s: tuple[float, float] = (0.04, 0.3)
    device_slowdown: tuple[float, float] = (20.0, 200.0)
    mec_slowdown: tuple[float, float] = (2.0, 8.0)
    device_load_frac: tuple[float, float] = (0.0, 0.5)
    mec_load_frac: tuple[float, float] = (0.0, 0.9)
    rtt_s: tuple[float, float] = (0.002, 0.02)
    uplink_share_frac: tuple[float, float] = (0.01, 0.2)
    frames: int = 300
    queue_limit: int = QUEUE_LIMIT  # frames that may wait; the oldest is dropped when one more arrives
    max_in_flight: int = MAX_IN_FLIGHT  # requests that may wait for the MEC at a time
    utility: Utility = field(default_factory=Utility)
    hardware_encoder: bool = False  # the device encodes H.264 in hardware, which changes what its decisions cost

    def __post_init__(self) -> None:
        for name in _LOG_UNIFORM + _UNIFORM:
            low, high = getattr(self, name)
            limits = replace(_SCENARIO_LIMITS[name], above_zero=name in _LOG_UNIFORM)
            if not (limits.hold(low) and limits.hold(high) and low <= high):
                expected = f"low <= high, both {limits}"
                raise UsageError(f"scenario range {name}: got [{low}, {high}]; expected {expected}")
        for name, most in _RANGE_COUNTS.items():
            if not 1 <= getattr(self, name) <= most:
                raise UsageError(f"scenario range {name}: got {getattr(self, name)}; expected 1 to {most}")
        if self.frames / self.fps[0] > MAX_LOAD_STEPS * LOAD_STEP_S:
            got = f"{self.frames} frames at {self.fps[0]} frames/s"
            raise UsageError(f"scenario range frames: got {got}; expected an episode of a day or less")

    def middle(self) -> Scenario:
        """The episode in the middle of the range: geometric means of ratios and times, arithmetic ones of loads."""
        means: dict[str, Any] = {name: math.sqrt(math.prod(getattr(self, name))) for name in _LOG_UNIFORM}
        means |= {name: sum(getattr(self, name)) / 2 for name in _UNIFORM}
        return Scenario(**means, frames=self.frames)

    def sample(
        self, rng: np.random.Generator, bank: TraceBank, samples: int, trace_index: int | None = None
    ) -> Scenario:
        """Draw one episode on a trace of the bank, any or the given one, over a split of ``samples`` samples.

        A trace may add the round trip of its link, and may be one that is not shared.
        """
        drawn = {}
        for name, share in zip(_LOG_UNIFORM + _UNIFORM, rng.random(_DRAWN).tolist(), strict=True):
            low, high = getattr(self, name)
            drawn[name] = low * (high / low) ** share if name in _LOG_UNIFORM else low + (high - low) * share
        index = int(rng.integers(len(bank))) if trace_index is None else trace_index
        trace = bank.traces[index]
        drawn["rtt_s"] += trace.rtt_s
        if not trace.is_shared:
            drawn["uplink_share_frac"] = 1.0
        return Scenario(
            **drawn,
            trace_index=index,
            trace_start_s=float(rng.uniform(0.0, trace.duration_s)),
            frames=self.frames,
            first_sample=int(rng.integers(samples)),
            seed=int(rng.integers(2**31)),
        )


_LOG_UNIFORM = (
    "fps",
    "deadline_s",
    "device_slowdown",
    "mec_slowdown",
    "rtt_s",
    "uplink_share_frac",
)
_UNIFORM = ("device_load_frac", "mec_load_frac")
_DRAWN = len(_LOG_UNIFORM + _UNIFORM)
