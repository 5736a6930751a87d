"""A plain state to try a controller on before it serves."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from controller.costs import CostTable
from controller.predict.expectation import idle_state
from controller.records import SystemState
from controller.scenario import Scenario

#: A link that works, in bit/s.
_UPLINK_BPS = 1e6


def plain_state(scenario: Scenario, costs: CostTable) -> SystemState:
    """One state (1,), as a device with these costs has it at its first frame: nothing waits, the uplink works, and no
    payload or crop has an earlier frame to refer to."""
    state = idle_state(
        deadline_s=np.array([scenario.deadline_s]),
        capture_period_s=np.array([1.0 / scenario.fps if scenario.fps else scenario.deadline_s]),
        device_slowdown=np.array([scenario.device_slowdown]),
        mec_slowdown=np.ones(1),
        mec_wait_s=np.array([scenario.rtt_s]),
        uplink_bps=np.array([_UPLINK_BPS]),
        reference_age=np.zeros((1, costs.streams), np.int64) if costs.streams else None,
    )
    return state if costs.crops is None else replace(state, whole_age=np.zeros(1, np.int64))
