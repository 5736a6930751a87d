"""One of several MECs: its breaker is told of every trial's end, whatever that was."""

from __future__ import annotations

from typing import Any

import pytest

from runtime.link.connection import Lost
from runtime.link.mecs.breaker import FAILURES
from runtime.link.mecs.member import Member
from runtime.protocol.conduct import FIRST_PAUSE_S


class ScriptedConnection:
    """Takes requests, and tells of their ends what the test says."""

    is_up = takes_more = True
    is_overdue = False

    def __init__(self) -> None:
        self.in_flight: tuple[object, ...] = ()
        self.ends: list[Lost[object]] = []

    def offload(self, job: object, _offload: Any, _now_s: float) -> None:
        self.in_flight += (job,)

    def poll(self) -> list[Lost[object]]:
        ends, self.ends = self.ends, []
        self.in_flight = ()
        return ends

    def release(self, _job: object) -> None:
        self.in_flight = ()


@pytest.mark.parametrize("is_released", [False, True])
def test_a_trial_that_is_rejected_for_its_reference_or_released_leaves_the_next_one_due(is_released: bool) -> None:
    connection = ScriptedConnection()
    member: Member[object] = Member("mec", connection, lambda _: None)  # type: ignore[arg-type]

    def ask(now_s: float, unknown_reference: bool) -> None:
        job = object()
        member.offload(job, None, now_s)  # type: ignore[arg-type]
        if is_released and unknown_reference:
            return member.release(job)
        connection.ends.append(Lost(job, unknown_reference=unknown_reference))
        member.poll(now_s)
        return None

    for _ in range(FAILURES):
        ask(0.0, unknown_reference=False)
    assert not member.wants_trial(0.0)
    assert member.wants_trial(FIRST_PAUSE_S)
    ask(FIRST_PAUSE_S, unknown_reference=True)
    assert member.wants_trial(FIRST_PAUSE_S)
