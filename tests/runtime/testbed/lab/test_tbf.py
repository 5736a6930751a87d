"""Arithmetic of the kernel's token bucket, and of the steps that it follows."""

from __future__ import annotations

import numpy as np
import pytest

from controller.predict.uplink import Trace, TraceBank
from runtime.testbed.lab.tbf import Steps, burst_bytes, felt_frac

HEADERS = 52


def test_the_bucket_holds_one_packet_and_not_two() -> None:
    assert all(mtu <= burst_bytes(mtu) < 2 * mtu for mtu in (296, 576, 1500, 9000))


def test_a_payload_of_one_packet_does_not_feel_the_rate_and_smaller_packets_help() -> None:
    assert felt_frac(1000, 1500, HEADERS) == 0
    assert felt_frac(1000, 576, HEADERS) == pytest.approx(1 - (576 + 16) / (1000 + 2 * HEADERS))
    assert felt_frac(1000, 296, HEADERS) > 0.7
    assert felt_frac(100_000, 1500, HEADERS) > 0.98


def test_steps_follow_the_trace_and_start_over() -> None:
    trace = Trace("t", np.array([0.0, 1.0, 1.5]), np.array([1e6, 2e6, 3e6]), 0.5)
    steps = Steps(TraceBank([trace]))
    assert steps.at(0.0) == (1e6, 1.0)
    assert steps.at(1.25) == (2e6, pytest.approx(0.25))
    assert steps.at(1.5) == (3e6, pytest.approx(0.5))
    assert steps.at(2.0) == (1e6, 1.0)
    assert steps.at(21.1) == (2e6, pytest.approx(0.4))
