"""From outcomes and log lines to the moment at which a fault was noticed, and to the first answer after it."""

from __future__ import annotations

from typing import Any

import pytest

from benchmarks.support.detection import noticed

FAULT_S, LOCAL, RAW = 100.0, "none", "raw"


def outcome(captured_at: float, latency_ms: float, status: str, payload: str, **spent: float) -> dict[str, Any]:
    decision = {"model": "net", "resolution_px": 28, "partition_point": 0, "payload": payload}
    breakdown = {"wait": 0.0, "decide": 1.0, "head": 2.0, "uplink": 0.0} | spent
    sent = 784 if payload == RAW else 0
    return {
        "captured_at": captured_at, "latency_ms": latency_ms, "status": status, "payload_bytes": sent,
        "decision": decision, "breakdown_ms": breakdown, "mec": None,
    }  # fmt: skip


BEFORE = outcome(99.0, 30.0, "ok", RAW)


def test_a_fallback_begins_when_its_timer_has_fired() -> None:
    fell_back = outcome(99.95, 190.0, "fallback", RAW, head=40.0, uplink=149.0)
    found = noticed([BEFORE, fell_back], [], FAULT_S)
    assert found is not None
    assert found.after_s == pytest.approx(0.102)  # 1 ms deciding, 2 ms head, 149 ms waiting
    assert found.answered_s == pytest.approx(0.038)


def test_a_line_of_the_log_may_come_first() -> None:
    lines = [(99.0, "the link is up: x"), (100.05, "mecpilot device: the link is down: x")]
    answered = outcome(100.04, 50.0, "ok", LOCAL)
    found = noticed([BEFORE, answered], lines, FAULT_S)
    assert found is not None
    assert (found.after_s, found.answered_s) == (pytest.approx(0.05), pytest.approx(0.04))


def test_the_answer_of_another_mec_counts() -> None:
    theirs = outcome(100.06, 30.0, "ok", RAW) | {"mec": "tcp://other:1"}
    lines = [(100.05, "tcp://first:1: the link is down: x")]
    assert noticed([BEFORE, theirs], lines, FAULT_S) is None
    found = noticed([BEFORE, theirs], lines, FAULT_S, ["tcp://other:1"])
    assert found is not None
    assert found.answered_s == pytest.approx(0.04)


def test_who_notices_nothing_has_no_figures() -> None:
    assert noticed([BEFORE, outcome(100.1, 30.0, "ok", RAW)], [], FAULT_S) is None
