"""Which earlier answer stands for a frame, and the rules that device and twin share."""

from __future__ import annotations

import numpy as np

from controller.records import Status
from controller.reuse import REASONS, Answers, PastAnswer, Reuse, in_time, next_run


def test_the_reasons_are_the_statuses_that_reuse_an_answer() -> None:
    assert set(REASONS) == {Status.SKIPPED, Status.FILTERED, Status.CACHED}


def test_the_newest_answer_is_that_of_the_newest_frame_and_not_the_last_that_came() -> None:
    answers = Answers()
    assert answers.newest_at(9.0) is None
    overtaken = PastAnswer(3, 1.2, "came last")
    for answer in (PastAnswer(2, 0.5, "a"), PastAnswer(4, 1.0, "b"), overtaken):
        answers.add(answer)
    assert answers.newest_at(0.4) is None
    assert answers.newest_at(0.5) == PastAnswer(2, 0.5, "a")
    assert answers.newest_at(2.0) == PastAnswer(4, 1.0, "b")


def test_an_answer_stands_at_the_capture_or_when_it_was_out() -> None:
    assert Reuse(Status.SKIPPED, None).latency_s(1.0) == 0.0
    assert Reuse(Status.SKIPPED, PastAnswer(0, 0.4, 1)).latency_s(1.0) == 0.0
    assert Reuse(Status.FILTERED, PastAnswer(0, 1.5, 1)).latency_s(1.0) == 0.5


def test_rules_take_numbers_and_arrays_alike() -> None:
    assert next_run(7, 3) == 10
    np.testing.assert_array_equal(next_run(np.array([7, 0]), np.array([3, 1])), [10, 1])
    assert in_time(0.1, 0.1)
    np.testing.assert_array_equal(in_time(np.array([0.1, 0.3]), np.array([0.2, 0.2])), [True, False])
