"""A plain state to try a controller on before it serves."""

from __future__ import annotations

import numpy as np

from controller.predict.expectation import idle_state
from controller.records import SystemState
from controller.scenario import Scenario

#: A link that works, in bit/s.
_UPLINK_BPS = 1e6


def plain_state(scenario: Scenario) -> SystemState:
    """One state (1,): nothing waits, and the uplink works."""
    return idle_state(
        deadline_s=np.array([scenario.deadline_s]),
        capture_period_s=np.array([1.0 / scenario.fps if scenario.fps else scenario.deadline_s]),
        device_slowdown=np.array([scenario.device_slowdown]),
        mec_slowdown=np.ones(1),
        mec_wait_s=np.array([scenario.rtt_s]),
        uplink_bps=np.array([_UPLINK_BPS]),
    )
