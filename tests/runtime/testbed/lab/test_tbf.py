"""Arithmetic of the kernel's token bucket, and of the steps that it follows."""

from __future__ import annotations

import numpy as np
import pytest

from controller.predict.uplink import Trace, TraceBank
from runtime.testbed.lab.tbf import Steps, burst_bytes


def test_the_bucket_holds_one_packet_and_not_two() -> None:
    assert all(mtu <= burst_bytes(mtu) < 2 * mtu for mtu in (296, 576, 1500, 9000))


def test_steps_follow_the_trace_and_start_over() -> None:
    trace = Trace("t", np.array([0.0, 1.0, 1.5]), np.array([1e6, 2e6, 3e6]), 0.5)
    steps = Steps(TraceBank([trace]))
    assert steps.at(0.0) == (1e6, 1.0)
    assert steps.at(1.25) == (2e6, pytest.approx(0.25))
    assert steps.at(1.5) == (3e6, pytest.approx(0.5))
    assert steps.at(2.0) == (1e6, 1.0)
    assert steps.at(21.1) == (2e6, pytest.approx(0.4))
