"""Under which conditions does each environment of the batch run? Scenarios as arrays, fixed for an episode."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from controller.errors import UsageError
from controller.predict.arrivals import level_of, spread_seed, stream_start
from controller.records import Floats, Ints
from controller.scenario import Scenario

#: Rows of the noise table; frame i of an episode uses row (start + i) modulo this.
NOISE_ROWS = 1 << 16


class Conditions(NamedTuple):
    """One scenario per row; every array is (B,) unless said otherwise."""

    interval_s: Floats  # between captures
    deadline_s: Floats
    device_slowdown: Floats
    mec_slowdown: Floats
    rtt_s: Floats
    trace: Ints
    trace_start_s: Floats
    bits_per_byte: Floats  # 8 over the share of the trace's bandwidth
    frames: Ints
    first_sample: Ints
    noise_start: Ints  # row of the noise table that frame 0 uses
    neighbour_s: Floats  # service time of other devices' requests
    neighbour_start: Floats  # where on the stream of others' requests the episode starts, in service times
    device_pace: Floats  # (B, S) 1 / (1 - load of the device) at each second
    mec_level: Ints  # (B, S) load of the MEC in hundredths at each second


def conditions_of(scenarios: Sequence[Scenario], neighbour_mec_s: float, seconds: int) -> Conditions:
    """The scenarios as arrays; ``seconds`` is the number of load steps to keep (the last one goes on)."""
    column = {
        name: np.array([getattr(scenario, name) for scenario in scenarios]) for name in Scenario.__dataclass_fields__
    }
    if (column["fps"] <= 0).any():
        raise UsageError("the twin got a scenario with fps 0; expected frames on a clock, e.g. fps=10")
    device = np.array([_to_length(scenario.device_load(), seconds) for scenario in scenarios])
    mec = np.array([_to_length(scenario.mec_load(), seconds) for scenario in scenarios])
    neighbour = neighbour_mec_s * column["mec_slowdown"]
    if neighbour_mec_s <= 0:  # nothing can be offloaded whole, so nobody does
        neighbour, mec = np.ones_like(neighbour), np.zeros_like(mec)
    return Conditions(
        interval_s=1.0 / column["fps"],
        deadline_s=column["deadline_s"],
        device_slowdown=column["device_slowdown"],
        mec_slowdown=column["mec_slowdown"],
        rtt_s=column["rtt_s"],
        trace=column["trace_index"],
        trace_start_s=column["trace_start_s"],
        bits_per_byte=8.0 / column["uplink_share_frac"],
        frames=column["frames"],
        first_sample=column["first_sample"],
        noise_start=spread_seed(column["seed"]) & (NOISE_ROWS - 1),
        neighbour_s=neighbour,
        neighbour_start=stream_start(column["seed"]),
        device_pace=1.0 / (1.0 - device),
        mec_level=level_of(mec),
    )


def load_steps(scenarios: Sequence[Scenario]) -> int:
    """How many load steps the longest of the scenarios has."""
    return max(len(scenario.device_load()) for scenario in scenarios)


def _to_length(series: Floats, length: int) -> Floats:
    """Cut, or go on with the last value."""
    return np.append(series[:length], np.full(max(length - len(series), 0), series[-1]))
