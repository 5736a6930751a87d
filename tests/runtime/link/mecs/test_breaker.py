"""The circuit breaker of one MEC: when it opens, what a trial changes, and how its pauses grow."""

from __future__ import annotations

import pytest

from runtime.link.mecs.breaker import FAILURES, LAST_RESORT_S, Breaker
from runtime.protocol.conduct import FIRST_PAUSE_S, GOOD_S, MOST_PAUSE_S


def opened(now_s: float = 0.0) -> Breaker:
    breaker = Breaker()
    for _ in range(FAILURES):
        breaker.failed(trial=False, now_s=now_s)
    return breaker


def test_failures_in_a_row_open_it_and_a_good_answer_between_them_does_not() -> None:
    breaker = Breaker()
    for _ in range(3 * FAILURES):
        for _ in range(FAILURES - 1):
            assert breaker.failed(trial=False, now_s=0.0) == 0.0
        breaker.succeeded(trial=False, now_s=0.0)
    assert breaker.is_closed
    pauses = [breaker.failed(trial=False, now_s=0.0) for _ in range(FAILURES)]
    assert pauses == [0.0] * (FAILURES - 1) + [FIRST_PAUSE_S]
    assert not breaker.lets_pass(FIRST_PAUSE_S - 0.01)


def test_after_the_pause_exactly_one_request_passes() -> None:
    breaker = opened()
    assert breaker.lets_pass(FIRST_PAUSE_S)
    assert breaker.sent()
    assert not breaker.lets_pass(10 * FIRST_PAUSE_S)


def test_where_no_other_mec_is_well_a_long_pause_is_cut_short() -> None:
    breaker = opened()
    for now_s in (1.0, 3.0, 6.0):  # pauses of 1, 2 and 4 s
        breaker.sent()
        breaker.failed(trial=True, now_s=now_s)
    assert not breaker.lets_pass(6.0 + LAST_RESORT_S)
    assert not breaker.lets_pass(5.9 + LAST_RESORT_S, last_resort=True)
    assert breaker.lets_pass(6.0 + LAST_RESORT_S, last_resort=True)


def test_a_trial_that_is_answered_closes_it() -> None:
    breaker = opened()
    breaker.sent()
    assert breaker.succeeded(trial=True, now_s=1.0)
    assert breaker.is_closed
    assert not breaker.sent()


def test_a_trial_that_tells_nothing_leaves_another_one_due() -> None:
    breaker = opened()
    breaker.sent()
    breaker.withdrawn()
    assert not breaker.is_closed
    assert breaker.lets_pass(FIRST_PAUSE_S)
    assert breaker.sent()


def test_what_becomes_of_earlier_requests_changes_nothing_while_it_is_open() -> None:
    breaker = opened()
    breaker.sent()
    assert not breaker.succeeded(trial=False, now_s=1.0)
    assert breaker.failed(trial=False, now_s=1.0) == 0.0
    assert not breaker.is_closed
    assert breaker.succeeded(trial=True, now_s=1.0)


def test_pauses_double_and_a_good_while_brings_the_first_one_back() -> None:
    breaker, now_s, pauses = opened(), 0.0, [FIRST_PAUSE_S]
    for _ in range(9):
        now_s += pauses[-1]
        assert breaker.sent()
        pauses.append(breaker.failed(trial=True, now_s=now_s))
    assert pauses[:4] == [FIRST_PAUSE_S * factor for factor in (1, 2, 4, 8)]
    assert pauses[-1] == MOST_PAUSE_S
    now_s += pauses[-1]
    breaker.sent()
    breaker.succeeded(trial=True, now_s=now_s)
    soon = [breaker.failed(trial=False, now_s=now_s + GOOD_S / 2) for _ in range(FAILURES)]
    assert soon[-1] == MOST_PAUSE_S  # it was closed for too short a time
    breaker.sent()
    breaker.succeeded(trial=True, now_s=now_s)
    later = [breaker.failed(trial=False, now_s=now_s + GOOD_S) for _ in range(FAILURES)]
    assert later[-1] == pytest.approx(FIRST_PAUSE_S)
    assert breaker.openings == 12
