"""What may block for long is done beside the loop: one question at a time, and work that is begun ahead."""

from __future__ import annotations

import threading
import time

import pytest
from support.waiting import PATIENCE_S, wait_until

from runtime.link.background import Ahead, Background


def test_a_question_that_hangs_is_asked_once_and_answered_once() -> None:
    go, asked = threading.Event(), []

    def hang() -> str:
        asked.append(1)
        go.wait(PATIENCE_S)
        return "answer"

    question = Background(hang)
    for _ in range(10):
        question.ask()
    assert question.take() is None
    go.set()
    wait_until(lambda: not question.asked)
    assert (len(asked), question.take(), question.take()) == (1, "answer", None)


def test_work_ahead_is_waited_for_and_its_error_is_raised_there() -> None:
    done: list[int] = []
    Ahead(lambda: done.append(1)).wait(lambda: False)
    assert done == [1]

    def fail() -> None:
        raise ValueError("no pictures")

    with pytest.raises(ValueError, match="no pictures"):
        Ahead(fail).wait(lambda: False)


def test_work_ahead_is_neither_waited_for_nor_left_running_when_the_process_is_to_end() -> None:
    steps: list[int] = []

    def work() -> None:
        while True:
            steps.append(1)
            time.sleep(0.01)

    ahead = Ahead(work)
    ahead.wait(lambda: True)
    ahead.abandon()
    count = len(steps)
    time.sleep(0.1)
    assert len(steps) == count
