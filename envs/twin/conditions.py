"""Under which conditions does each environment of the batch run? Scenarios as records, fixed for an episode."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields
from typing import Any

import numpy as np

from controller.errors import UsageError
from controller.loads import load_frac, load_start, next_deviation
from controller.predict.arrivals import LEVELS, spread_seed, stream_start
from controller.scenario import Scenario
from envs.twin.state import CONDITIONS, Environment
from envs.twin.tables import NOISE_ROWS, TwinTables, records_of


def conditions_of(scenarios: Sequence[Scenario], neighbour_mec_s: float) -> Any:
    """(B,) CONDITIONS of the scenarios; ``neighbour_mec_s`` is the MEC time of one request of another device.

    Where that is 0, nothing can be offloaded whole, and nobody does.
    """
    others = neighbour_mec_s > 0
    column = {field.name: np.array([getattr(each, field.name) for each in scenarios]) for field in fields(Scenario)}
    if (column["fps"] <= 0).any():
        raise UsageError("the twin got a scenario with fps 0; expected frames on a clock, e.g. fps=10")
    column["mec_load_frac"] *= others
    return records_of(
        CONDITIONS,
        **{name: values for name, values in column.items() if name in (CONDITIONS.names or ())},
        capture_period_s=1.0 / column["fps"],
        bits_per_byte=8.0 / column["uplink_share_frac"],
        noise_start=spread_seed(column["seed"]) & (NOISE_ROWS - 1),
        device_load_start=load_start(np.array([scenario.device_load_seed for scenario in scenarios])),
        mec_load_start=load_start(np.array([scenario.mec_load_seed for scenario in scenarios])),
        load_steps=[scenario.load_steps for scenario in scenarios],
        neighbour_s=neighbour_mec_s * column["mec_slowdown"] if others else 1.0,
        neighbour_start=stream_start(column["seed"]),
    )


def begin_loads(t: TwinTables, env: Environment) -> None:
    """The loads of an episode at each second; the last one goes on."""
    conditions, own, others, pace, level = env.conditions, 0.0, 0.0, 1.0, 0
    for second in range(len(env.device_pace)):
        if second < conditions.load_steps:
            own = next_deviation(t.load_draws, conditions.device_load_start, second, own)
            others = next_deviation(t.load_draws, conditions.mec_load_start, second, others)
            pace = 1.0 / (1.0 - load_frac(conditions.device_load_frac, own))
            level = min(int(np.rint(load_frac(conditions.mec_load_frac, others) * 100)), LEVELS - 1)
        env.device_pace[second], env.mec_level[second] = pace, level
