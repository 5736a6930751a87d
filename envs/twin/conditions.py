"""Under which conditions does each environment of the batch run? Scenarios as records, fixed for an episode."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from controller.errors import UsageError
from controller.predict.arrivals import LEVELS, spread_seed, stream_start
from controller.records import Floats
from controller.scenario import Scenario, walk_loads
from envs.twin.draws import normals
from envs.twin.state import CONDITIONS, Environment
from envs.twin.tables import NOISE_ROWS, records_of


def conditions_of(scenarios: Sequence[Scenario], neighbour_mec_s: float) -> Any:
    """(B,) CONDITIONS of the scenarios; ``neighbour_mec_s`` is the MEC time of one request of another device.

    Where that is 0, nothing can be offloaded whole, and nobody does.
    """
    others = neighbour_mec_s > 0
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
        trace_number=column["trace_index"],
        trace_start_s=column["trace_start_s"],
        bits_per_byte=8.0 / column["uplink_share_frac"],
        frames=column["frames"],
        first_sample=column["first_sample"],
        noise_start=spread_seed(column["seed"]) & (NOISE_ROWS - 1),
        device_load_frac=column["device_load_frac"],
        mec_load_frac=column["mec_load_frac"] * others,
        load_steps=[scenario.load_steps for scenario in scenarios],
        neighbour_s=neighbour_mec_s * column["mec_slowdown"] if others else 1.0,
        neighbour_start=stream_start(column["seed"]),
    )


def load_noise_of(scenarios: Sequence[Scenario], seconds: int) -> Floats:
    """(B, 2, seconds) what the loads of device and MEC are made of (``begin_loads``), as ``Scenario.device_load`` and
    ``mec_load`` draw it."""
    seeds = [(scenario.device_load_seed, scenario.mec_load_seed) for scenario in scenarios]
    steps = [(scenario.load_steps, scenario.load_steps) for scenario in scenarios]
    return normals(np.ravel(seeds), np.minimum(np.ravel(steps), seconds), seconds).reshape(-1, 2, seconds)


def begin_loads(env: Environment, noise: Any) -> None:
    """The loads of an episode at each second, from ``noise`` (2, seconds), which is used up; the last one goes on."""
    conditions, seconds = env.conditions, len(env.device_pace)
    steps = min(conditions.load_steps, seconds)
    walk_loads(noise[0], steps, conditions.device_load_frac)
    walk_loads(noise[1], steps, conditions.mec_load_frac)
    for second in range(seconds):
        drawn = min(second, steps - 1)
        env.device_pace[second] = 1.0 / (1.0 - noise[0, drawn])
        env.mec_level[second] = min(int(np.rint(noise[1, drawn] * 100)), LEVELS - 1)
