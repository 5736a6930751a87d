"""Whatever is lost, late or restarted: a payload decodes to what was encoded, or its reference is unknown."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from numpy.typing import NDArray
from support.levels import fitted, moving_levels, signs_of

from controller.errors import UsageError
from runtime.codecs.signs import Signs
from runtime.codecs.signs.stream import SignsReceiver, SignsSender
from runtime.codecs.streams import KEPT_REFERENCES, Encoded, UnknownReferenceError

SHAPE = (3, 6, 7)
TABLES = fitted(SHAPE)
FRAMES = signs_of(moving_levels(SHAPE, 60, 5))


class Link:
    """A sender and a receiver with a numbered stream of frames between them."""

    def __init__(self, tables: dict[str, NDArray[np.uint8]] = TABLES) -> None:
        self.tables = tables
        self.sender: Any = Signs().sender(SHAPE, tables)
        self.receiver: Any = Signs().receiver(SHAPE, tables)
        self.frame, self.next_id = 0, 1

    def encode(self) -> tuple[int, Encoded, NDArray[np.float32]]:
        self.frame += 1
        array = FRAMES[self.frame % len(FRAMES)]
        encoded = self.sender.encode(array, self.frame)
        number, self.next_id = self.next_id, self.next_id + 1
        self.sender.sent(number)
        return number, encoded, array

    def deliver(self, number: int, encoded: Encoded, array: NDArray[np.float32]) -> None:
        restored = self.receiver.decode(encoded.payload, number, encoded.reference_id, encoded.digest)
        assert np.array_equal(restored, array)

    def exchange(self) -> Encoded:
        number, encoded, array = self.encode()
        self.deliver(number, encoded, array)
        self.sender.answered(number)
        return encoded


@pytest.fixture
def link() -> Link:
    return Link()


def test_the_newest_answered_request_is_the_reference(link: Link) -> None:
    assert link.exchange().reference_id == 0
    assert link.exchange().reference_id == 1
    sent = [link.encode() for _ in range(3)]  # requests 3, 4 and 5
    assert [encoded.reference_id for _, encoded, _ in sent] == [2, 2, 2]
    for request in sent:
        link.deliver(*request)
    link.sender.answered(4)
    assert link.exchange().reference_id == 4
    link.sender.answered(3)  # a late answer
    assert link.exchange().reference_id == 6


def test_a_lost_request_costs_no_whole_frame_when_an_older_answered_one_is_held(link: Link) -> None:
    for _ in range(3):
        link.exchange()
    number, encoded, _ = link.encode()
    assert encoded.reference_id == 3
    link.sender.unanswered(number)
    assert link.exchange().reference_id == 2


def test_an_answer_that_comes_after_the_request_was_given_up_is_ignored(link: Link) -> None:
    number, *_ = link.encode()
    link.sender.unanswered(number)
    link.sender.answered(number)
    assert link.exchange().reference_id == 0


def test_a_forgotten_connection_begins_with_a_payload_that_stands_alone(link: Link) -> None:
    link.exchange()
    link.sender.forget()
    encoded = link.exchange()
    assert (encoded.reference_id, encoded.digest) == (0, 0)


def test_a_restarted_receiver_refuses_each_reference_once_and_then_gets_a_whole_frame(link: Link) -> None:
    for _ in range(KEPT_REFERENCES):
        link.exchange()
    link.receiver = Signs().receiver(SHAPE, TABLES)
    request = link.encode()
    refused = 0
    while request[1].reference_id:
        with pytest.raises(UnknownReferenceError, match="not held"):
            link.deliver(*request)
        link.sender.unanswered(request[0])
        refused += 1
        request = link.encode()
    assert 0 < refused < KEPT_REFERENCES
    link.deliver(*request)


def test_a_reference_that_was_replaced_on_the_other_side_is_refused(link: Link) -> None:
    link.exchange()
    other = Signs().sender(SHAPE, TABLES).encode(-FRAMES[0], 0)
    link.receiver.decode(other.payload, 1, 0, 0)
    with pytest.raises(UnknownReferenceError, match="another request 1"):
        link.deliver(*link.encode())


def test_numbers_may_wrap_around_and_request_zero_is_no_reference(link: Link) -> None:
    link.next_id = 2**32 - 2
    for expected in (0, 2**32 - 2):
        assert link.exchange().reference_id == expected
    link.next_id = 0
    assert link.exchange().reference_id == 2**32 - 1
    assert link.exchange().reference_id == 2**32 - 1  # request 0 left nothing
    assert link.exchange().reference_id == 1


def test_a_reused_number_is_the_newest_request(link: Link) -> None:
    for _ in range(2):
        link.exchange()
    link.next_id = 1
    link.exchange()
    assert link.exchange().reference_id == 1


def test_the_age_is_the_distance_in_frames_up_to_the_largest(link: Link) -> None:
    link.exchange()
    for skipped, age in ((0, 1), (4, 5), (200, 16), (-300, 1)):
        link.frame += skipped
        assert link.exchange().payload[0] >> 2 == age


def test_another_shape_and_a_request_without_a_payload_are_errors_of_the_caller(link: Link) -> None:
    with pytest.raises(UsageError, match="open a sender for each"):
        link.sender.encode(FRAMES[0][:, :5], 0)
    with pytest.raises(UsageError, match="call encode first"):
        link.sender.sent(1)


class Streams(RuleBasedStateMachine):
    """Any order of sending, losing, answering, giving up, forgetting and restarting."""

    @initialize(tables=st.sampled_from([TABLES, {}]), first=st.sampled_from([1, 2**32 - 5]))
    def start(self, tables: dict[str, NDArray[np.uint8]], first: int) -> None:
        self.link = Link(tables)
        self.link.next_id = first
        self.in_flight: list[tuple[int, Encoded, NDArray[np.float32]]] = []
        self.arrived: list[int] = []
        self.restarted = False  # or messages overtook each other by far, so a reference may be gone

    @rule(skipped=st.integers(0, 20))
    def send(self, skipped: int) -> None:
        self.link.frame += skipped
        self.in_flight.append(self.link.encode())
        self.link.next_id %= 2**32

    @precondition(lambda self: self.in_flight)
    @rule()
    def deliver_the_next(self) -> None:
        self._deliver(0)

    @precondition(lambda self: self.in_flight)
    @rule(which=st.integers(0, 7))
    def deliver_out_of_order(self, which: int) -> None:
        self.restarted |= which > 0
        self._deliver(which % len(self.in_flight))

    def _deliver(self, which: int) -> None:
        request = self.in_flight.pop(which)
        try:
            self.link.deliver(*request)
            self.arrived.append(request[0])
        except UnknownReferenceError:
            assert self.restarted
            self.link.sender.unanswered(request[0])

    @precondition(lambda self: self.arrived)
    @rule(which=st.integers(0, 7))
    def answer(self, which: int) -> None:
        self.link.sender.answered(self.arrived.pop(which % len(self.arrived)))

    @precondition(lambda self: self.in_flight)
    @rule(which=st.integers(0, 7))
    def lose(self, which: int) -> None:
        self.link.sender.unanswered(self.in_flight.pop(which % len(self.in_flight))[0])

    @precondition(lambda self: self.arrived)
    @rule(which=st.integers(0, 7))
    def lose_the_answer(self, which: int) -> None:
        self.link.sender.unanswered(self.arrived.pop(which % len(self.arrived)))

    @rule()
    def forget(self) -> None:
        self.link.sender.forget()

    @rule()
    def restart_the_receiver(self) -> None:
        self.link.receiver = Signs().receiver(SHAPE, self.link.tables)
        self.restarted = True

    @invariant()
    def memory_is_bounded(self) -> None:
        if hasattr(self, "link"):
            sender, receiver = self.link.sender, self.link.receiver
            assert isinstance(sender, SignsSender)
            assert isinstance(receiver, SignsReceiver)
            assert len(sender._sent) <= KEPT_REFERENCES
            assert len(receiver._kept) <= KEPT_REFERENCES


TestStreams = Streams.TestCase
TestStreams.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
