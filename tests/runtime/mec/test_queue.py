"""The order of a MEC's queue, its shares, and whom it turns away, in virtual time."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.simulated import HELD

from runtime.config.sections.admission import OPEN_ADMISSION, AdmissionSection
from runtime.mec.limits import Account
from runtime.mec.queue import RequestQueue
from runtime.protocol import wire
from runtime.protocol.mec_session import Admit

FAIR = AdmissionSection(by_budget=False, device_queue_limit=10_000)
IN_TIME = AdmissionSection(device_queue_limit=10_000)
TAIL_S = 0.01
AMPLE_MS = 60_000


@dataclass
class Bench:
    """A queue, its devices by name, and a MEC that takes exactly the profiled time."""

    queue: RequestQueue
    accounts: dict[str, Account] = field(default_factory=dict)
    now_s: float = 0.0
    number: int = 0
    refused: list[tuple[str, str, float]] = field(default_factory=list)  # device, why, wait

    def ask(self, device: str, tail_s: float = TAIL_S, budget_ms: int = AMPLE_MS) -> bool:
        """Add a request; whether it is among those that wait."""
        self.number += 1
        account = self.accounts.setdefault(device, Account(OPEN_ADMISSION, self.now_s))
        request = wire.InferRequest(self.number, 0, budget_ms)
        job = Admit(device.encode(), request, b"", self.now_s, HELD)
        refusal = self.queue.add(job, account, tail_s, self.now_s)
        if refusal:
            self.refused.append((refusal.job.peer.decode(), refusal.why, refusal.wait_s))
        return refusal is None or refusal.job is not job

    def serve(self, took_s: float = TAIL_S) -> str:
        job = self.queue.take()
        self.queue.began(self.now_s)
        self.now_s += took_s
        self.queue.ended(took_s)
        return job.peer.decode()

    def order(self) -> str:
        return "".join(self.serve() for _ in range(len(self.queue)))


def bench(admission: AdmissionSection = FAIR, limit: int = 10_000) -> Bench:
    return Bench(RequestQueue(limit, admission))


@given(st.text("abc", max_size=30))
def test_without_fairness_the_order_is_that_of_arrival(asked: str) -> None:
    plain = bench(OPEN_ADMISSION)
    for device in asked:
        plain.ask(device)
    assert plain.order() == asked


@given(st.lists(st.tuples(st.floats(1e-4, 1.0), st.booleans()), max_size=40))
def test_one_device_alone_is_served_in_order_of_arrival_whatever_its_requests_cost(
    steps: list[tuple[float, bool]],
) -> None:
    alone, served = bench(), list[int]()
    for tail_s, serve in steps:
        alone.ask("a", tail_s)
        if serve:
            served.append(alone.queue.take().request.request_id)
            alone.queue.ended(tail_s)
    while alone.queue:
        served.append(alone.queue.take().request.request_id)
    assert served == sorted(served)
    assert len(served) == len(steps)


def test_devices_with_one_request_each_are_served_in_order_of_arrival() -> None:
    many = bench()
    for device in "dacb":
        many.ask(device)
    assert many.order() == "dacb"


def test_a_device_with_many_requests_takes_turns_with_the_others() -> None:
    queue = bench()
    for device in "aaaaaabb":
        queue.ask(device)
    assert queue.order() == "ababaaaa"
    queue.ask("a")
    queue.serve()
    queue.ask("a")
    queue.ask("b")
    assert queue.order() == "ab"  # an idle MEC holds nothing against anybody


def test_shares_are_of_time_and_not_of_requests() -> None:
    queue = bench()
    for _ in range(4):
        queue.ask("a", 3 * TAIL_S)
    for _ in range(12):
        queue.ask("b", TAIL_S)
    assert queue.order()[:8] in ("abbbabbb", "ababbabb")


@given(st.lists(st.sampled_from("abcd"), min_size=8, max_size=60), st.data())
def test_backlogged_devices_never_differ_by_more_than_two_of_the_largest_requests(
    asked: list[str], data: st.DataObject
) -> None:
    """The bound of start-time fair queueing, for devices that always have something waiting."""
    queue, largest = bench(), 0.03
    costs = {device: data.draw(st.sampled_from([0.01, 0.02, largest]), label=device) for device in "abcd"}
    for device in [*"abcd", *asked]:
        queue.ask(device, costs[device])
    had = dict.fromkeys("abcd", 0.0)
    waiting = {device: asked.count(device) + 1 for device in "abcd"}
    while all(waiting.values()):
        device = queue.serve(costs[queue.queue._waiting[0].job.peer.decode()])
        had[device] += costs[device]
        waiting[device] -= 1
        assert max(had.values()) - min(had.values()) <= 2 * largest + 1e-9


def test_a_request_that_expired_is_not_held_against_its_device() -> None:
    queue = bench()
    queue.ask("a")
    queue.queue.take()
    queue.queue.expired()
    queue.ask("a")
    queue.ask("b")
    assert queue.order() == "ab"


def test_a_device_has_so_many_requests_waiting_and_no_more() -> None:
    queue = bench(msgspec.structs.replace(FAIR, device_queue_limit=3))
    assert [queue.ask("a") for _ in range(5)] == [True] * 3 + [False] * 2
    assert queue.ask("b")
    assert "3 requests of this device" in queue.refused[0][1]
    queue.serve()
    assert queue.ask("a")


def test_a_full_queue_gives_up_what_the_greediest_device_asked_last() -> None:
    queue = bench(limit=4)
    for device in "aaab":
        queue.ask(device)
    assert queue.ask("c")
    assert [device for device, *_ in queue.refused] == ["a"]
    assert sorted(queue.order()) == ["a", "a", "b", "c"]
    for device in "abcd":
        queue.ask(device)
    assert not queue.ask("e")  # everyone has one
    assert not queue.ask("a")


def test_a_full_queue_in_order_of_arrival_turns_the_newcomer_away() -> None:
    queue = bench(OPEN_ADMISSION, limit=2)
    assert [queue.ask(device) for device in "aab"] == [True, True, False]


# Admission by budget ---------------------------------------------------------------------------------------------


def test_a_request_that_cannot_be_in_time_is_refused_at_once_with_the_wait_that_it_would_have() -> None:
    queue = bench(IN_TIME)
    for device in "abc":
        assert queue.ask(device)
    assert not queue.ask("d", budget_ms=39)
    ((device, _, wait_s),) = queue.refused
    assert (device, wait_s) == ("d", pytest.approx(3 * TAIL_S))
    assert queue.ask("d", budget_ms=41)


def test_work_behind_a_request_is_not_held_against_it() -> None:
    queue = bench(IN_TIME)
    queue.ask("x")
    queue.queue.take()
    queue.queue.began(queue.now_s)
    for _ in range(9):
        queue.ask("a")
    assert queue.ask("b", budget_ms=31)  # the one in service, one of device a, itself
    assert not queue.ask("c", budget_ms=29)


def test_what_has_expired_already_is_no_work() -> None:
    queue = bench(IN_TIME)
    for _ in range(3):
        queue.ask("a", budget_ms=50)
    queue.now_s += 0.06
    assert queue.ask("b", budget_ms=11)


def test_a_request_before_which_nothing_waits_is_always_taken() -> None:
    """Otherwise a MEC whose profile is far too slow would refuse everything and never find out."""
    queue = bench(IN_TIME)
    assert queue.ask("a", tail_s=10.0, budget_ms=100)
    queue.serve(took_s=0.001)
    assert queue.ask("a", tail_s=10.0, budget_ms=100)
    assert queue.ask("b", tail_s=10.0, budget_ms=100)  # known by now: 1 ms each
    assert queue.queue.pace == pytest.approx(1e-4)


def test_the_pace_follows_a_mec_that_becomes_slow() -> None:
    queue = bench(IN_TIME)
    for _ in range(100):
        queue.ask("a")
        queue.serve(TAIL_S)
    assert queue.queue.pace == pytest.approx(1.0)
    for _ in range(100):
        queue.ask("a")
        queue.serve(3 * TAIL_S)
    assert queue.queue.pace == pytest.approx(3.0, rel=0.02)
    assert math.isfinite(RequestQueue(1, slowdown=5.0).pace)


def test_a_request_that_fails_says_nothing_about_the_pace() -> None:
    queue = bench(IN_TIME)
    queue.ask("a")
    queue.queue.take()
    queue.queue.began(0.0)
    queue.queue.ended(None)
    assert queue.queue.pace == 1.0
