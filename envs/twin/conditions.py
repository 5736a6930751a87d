"""Under which conditions does each environment of the batch run? Scenarios as records, fixed for an episode."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from controller.errors import UsageError
from controller.predict.arrivals import level_of, spread_seed, stream_start
from controller.records import Floats, Ints
from controller.scenario import Scenario
from envs.twin.state import CONDITIONS
from envs.twin.tables import NOISE_ROWS, records_of


def conditions_of(scenarios: Sequence[Scenario], neighbour_mec_s: float) -> Any:
    """(B,) CONDITIONS of the scenarios; ``neighbour_mec_s`` is the MEC time of one request of another device."""
    column = {
        name: np.array([getattr(scenario, name) for scenario in scenarios]) for name in Scenario.__dataclass_fields__
    }
    if (column["fps"] <= 0).any():
        raise UsageError("the twin got a scenario with fps 0; expected frames on a clock, e.g. fps=10")
    return records_of(
        CONDITIONS,
        capture_period_s=1.0 / column["fps"],
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
        # Where nothing can be offloaded whole, nobody does.
        neighbour_s=neighbour_mec_s * column["mec_slowdown"] if neighbour_mec_s > 0 else 1.0,
        neighbour_start=stream_start(column["seed"]),
    )


def loads_of(scenarios: Sequence[Scenario], seconds: int, others: bool) -> tuple[Floats, Ints]:
    """(B, seconds) pace of the device and level of the MEC's load at each second; the last one goes on.

    Without ``others`` no other device asks the MEC.
    """
    device = np.array([_to_length(scenario.device_load(), seconds) for scenario in scenarios])
    mec = np.array([_to_length(scenario.mec_load(), seconds) for scenario in scenarios])
    return 1.0 / (1.0 - device), level_of(mec if others else np.zeros_like(mec))


def load_steps(scenarios: Sequence[Scenario]) -> int:
    """How many load steps the longest of the scenarios has."""
    return max(len(scenario.device_load()) for scenario in scenarios)


def _to_length(series: Floats, length: int) -> Floats:
    """Cut, or go on with the last value."""
    return np.append(series[:length], np.full(max(length - len(series), 0), series[-1]))
