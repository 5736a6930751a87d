"""Bytes on the wire: as counted of real packets, alike for numbers and arrays, with the headers of real messages."""

from __future__ import annotations

import numpy as np
import pytest

from controller.packets import (
    ACKNOWLEDGEMENT_BYTES,
    PING_HEADER_BYTES,
    REQUEST_HEADER_BYTES,
    ping_bytes,
    wire_bytes,
)
from controller.timeline import HEARTBEAT_S, RAREST_HEARTBEAT_S, heartbeat_s, next_probe_bytes, probe_bytes
from runtime.protocol import wire


@pytest.mark.parametrize(
    ("payload", "captured"), [(48, 123), (88, 163), (255, 330), (256, 338), (1300, 1382), (2300, 2434), (7800, 8142)]
)
def test_requests_take_what_was_captured_of_real_packets(payload: int, captured: int) -> None:
    """The figures are those of ``benchmarks.bench_packets``."""
    assert wire_bytes(payload) == captured + ACKNOWLEDGEMENT_BYTES


@pytest.mark.parametrize(("padding", "captured"), [(0, 62), (1024, 1095)])
def test_pings_take_what_was_captured_of_real_packets(padding: int, captured: int) -> None:
    assert ping_bytes(padding) == captured + ACKNOWLEDGEMENT_BYTES


@pytest.mark.parametrize(("payload", "more"), [(48, 66), (222, 66), (223, 73), (255, 73), (256, 66), (1000, 66)])
def test_sealed_requests_take_what_was_counted_of_real_streams(payload: int, more: int) -> None:
    """The figures are those of ``benchmarks.bench_curve``; none of these sizes needs one more segment."""
    assert wire_bytes(payload, sealed=True) == wire_bytes(payload) + more


def test_a_sealed_ping_has_one_part() -> None:
    assert ping_bytes(0, sealed=True) == ping_bytes(0) + 33


def test_arrays_and_numbers_give_the_same() -> None:
    sizes = np.array([0.0, 1.0, 255.0, 256.0, 1400.0, 30_000.0])
    assert wire_bytes(sizes).tolist() == [wire_bytes(float(size)) for size in sizes]


def test_headers_are_those_of_typical_messages() -> None:
    alone = wire.InferRequest(3000, 1200, 150)
    assert len(wire.encode(wire.with_reference(alone, 2998, 0x89ABCDEF))[0]) == REQUEST_HEADER_BYTES
    assert len(wire.encode(alone)[0]) == REQUEST_HEADER_BYTES - 4  # counted like one with a reference
    assert len(wire.encode(wire.Ping(3000))[0]) == PING_HEADER_BYTES


def test_pings_take_a_twentieth_of_a_narrow_uplink() -> None:
    assert heartbeat_s(1e6) == HEARTBEAT_S
    assert ping_bytes(0) * 8 / heartbeat_s(16e3) == pytest.approx(0.05 * 16e3)
    assert heartbeat_s(1e3) == RAREST_HEARTBEAT_S


def test_a_larger_probe_follows_a_small_one_on_a_fast_uplink_only() -> None:
    smallest = probe_bytes(8e3)
    assert ping_bytes(smallest) * 8 / 8e3 < 0.3
    assert next_probe_bytes(smallest, 8e3) == 0
    larger = next_probe_bytes(smallest, 1e7)
    assert larger == probe_bytes(1e7) > 4 * smallest
    assert next_probe_bytes(larger, 1e9) == 0
