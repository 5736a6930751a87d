"""Requests that are computed together: how many, which ones, and that none of them changes another's answer."""

from __future__ import annotations

import math
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from support.live import WORKLOAD
from support.simulated import HELD

from benchmarks.bench_many import raw_row
from benchmarks.support.crowd import Client, payload_of, play
from controller.errors import RemoteProtocolError, UsageError
from runtime.bundles.bundle import Bundle, open_bundle
from runtime.config.sections.admission import OPEN_ADMISSION, AdmissionSection
from runtime.inference.segments import Segments
from runtime.link.dealer import Dealer
from runtime.mec.batches import BatchTimes
from runtime.mec.limits import Account
from runtime.mec.queue import RequestQueue
from runtime.mec.served import Ran, Served
from runtime.mec.server import MecServer
from runtime.protocol import wire
from runtime.protocol.mec_session import Admit

#: How far an output may lie from the one computed alone, on a CPU: 2e-6 was the most that was seen.
TOLERANCE = 1e-5
AMPLE = [math.inf] * 100
KIND = "kind"

# How many ------------------------------------------------------------------------------------------------------


def sizes_chosen(times: BatchTimes, takes_s: dict[int, float], batches: int, until_s: list[float] = AMPLE) -> list[int]:
    """The sizes of so many batches of a MEC whose times are these."""
    chosen = []
    for _ in range(batches):
        size = times.size(KIND, until_s)
        times.took(KIND, size, takes_s[size])
        chosen.append(size)
    return chosen


def test_each_size_is_tried_twice_and_the_one_with_the_least_time_per_request_is_kept() -> None:
    takes_s = {1: 1.0, 2: 2.0, 4: 3.0, 8: 5.0, 16: 10.5}
    assert sizes_chosen(BatchTimes(), takes_s, 14, AMPLE[:15]) == [1, 1, 2, 2, 4, 4, 8, 8, 16, 16, 8, 8, 8, 8]


def test_larger_sizes_are_not_tried_where_a_size_takes_longer_than_its_members_alone() -> None:
    takes_s = {1: 1.0, 2: 2.5}
    assert sizes_chosen(BatchTimes(), takes_s, 50) == [1, 1, 2, 2, *[1] * 46]


def test_a_first_run_that_builds_kernels_is_forgotten() -> None:
    times = BatchTimes()
    for size, took_s in ((1, 5.0), (1, 1.0), (2, 9.0), (2, 1.5)):
        times.took(KIND, size, took_s)
    assert times.expected_s(KIND, 2) == 1.5
    assert times.size(KIND, AMPLE[:2]) == 2


def test_a_size_that_was_not_run_for_long_is_tried_again() -> None:
    times, takes_s = BatchTimes(), {1: 1.0, 2: 3.0}
    assert sizes_chosen(times, takes_s, 1100, AMPLE[:1]).count(2) == 4
    takes_s[2] = 1.0  # another process has ended
    assert sizes_chosen(times, takes_s, 1100, AMPLE[:1]).count(2) > 50


def test_a_batch_ends_before_the_deadlines_that_it_could_make_late() -> None:
    times = BatchTimes()
    sizes_chosen(times, {1: 1.0, 2: 1.2, 4: 1.6, 8: 2.4}, 20, AMPLE[:7])
    assert times.size(KIND, [3.0, 2.0, 2.0, 1.5, 1.5, 1.5, 1.5]) == 4
    assert times.size(KIND, [1.1] * 7) == 1
    assert times.size(KIND, []) == 1


def test_a_size_that_was_never_run_is_expected_to_take_its_share_of_the_next_smaller_one() -> None:
    times = BatchTimes()
    assert times.expected_s(KIND, 4) is None
    times.took(KIND, 2, 3.0)
    assert times.expected_s(KIND, 8) == 12.0


# Which ones ----------------------------------------------------------------------------------------------------

TAIL_S = 0.01


def queue_of(asked: list[tuple[str, int, int]]) -> RequestQueue:
    """A fair queue of requests: device, row, budget in milliseconds. All arrived at 0."""
    queue = RequestQueue(1000, AdmissionSection(by_budget=False, device_queue_limit=1000))
    accounts: dict[str, Account] = {}
    for number, (device, row, budget_ms) in enumerate(asked, 1):
        account = accounts.setdefault(device, Account(OPEN_ADMISSION, 0.0))
        job = Admit(device.encode(), wire.InferRequest(number, row, budget_ms), b"", 0.0, HELD)
        assert queue.add(job, account, TAIL_S, 0.0) is None
    return queue


def joining(queue: RequestQueue) -> list[tuple[int, float]]:
    """Number and time limit of those that may join the next request."""
    row = queue.take().request.row
    found = queue.alike(lambda job: job.request.row == row, now_s=0.0)
    return [(each.job.request.request_id, round(each.until_s, 6)) for each in found]


def test_requests_of_the_same_kind_join_in_their_order_and_each_limits_the_batch() -> None:
    queue = queue_of([("a", 0, 900), ("b", 0, 800), ("c", 1, 900), ("d", 0, 850)])
    assert joining(queue) == [(2, 0.8), (4, 0.8)]


def test_a_request_that_is_overtaken_keeps_time_for_its_own_tail() -> None:
    queue = queue_of([("a", 0, 900), ("b", 1, 100), ("c", 1, 105), ("d", 0, 900)])
    assert joining(queue) == [(4, 0.085)]  # c: 105 ms, less the tails of b and c


def test_one_that_is_late_in_any_case_limits_nothing() -> None:
    queue = queue_of([("a", 0, 900), ("b", 1, 5), ("c", 0, 900)])
    assert joining(queue) == [(3, 0.9)]


def test_a_request_never_overtakes_an_earlier_one_of_its_device() -> None:
    queue = queue_of([("a", 0, 900), ("b", 1, 900), ("b", 0, 900), ("c", 0, 900)])
    assert joining(queue) == [(4, 0.89)]


@given(st.lists(st.tuples(st.sampled_from("abc"), st.integers(0, 1), st.integers(1, 500)), max_size=30), st.data())
def test_whoever_joins_every_request_is_taken_once_and_in_the_order_of_its_device(
    asked: list[tuple[str, int, int]], data: st.DataObject
) -> None:
    queue, taken = queue_of(asked), list[Admit]()
    while queue:
        first = queue.take()
        alike = queue.alike(lambda job, row=first.request.row: job.request.row == row, now_s=0.0)  # type: ignore[misc]
        limits = [each.until_s for each in alike]
        assert limits == sorted(limits, reverse=True)
        taken += [first, *queue.join(alike[: data.draw(st.integers(0, len(alike)))])]
        queue.began(0.0)
        queue.ended(TAIL_S)
    assert sorted(job.request.request_id for job in taken) == list(range(1, len(asked) + 1))
    for device in "abc":
        own = [job.request.request_id for job in taken if job.peer == device.encode()]
        assert own == sorted(own)


# What becomes of them ------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def bundle() -> Bundle:
    torch.set_num_threads(1)
    return open_bundle(WORKLOAD)


def asked_of(bundle: Bundle, row: int, broken: int | None = None, count: int = 8) -> list[Admit]:
    """Requests of as many devices; the payload of one is cut short."""
    payloads = [payload_of(bundle, row, device) for device in range(count)]
    if broken is not None:
        payloads[broken] = payloads[broken][:-1]
    return [
        Admit(b"%d" % device, wire.InferRequest(1, row, 1000), payload, 0.0, bundle.held)
        for device, payload in enumerate(payloads)
    ]


def outputs_of(found: list[Ran | Exception]) -> list[np.ndarray]:
    return [one.outputs if isinstance(one, Ran) else np.full((1, 10), np.nan, np.float32) for one in found]


def test_a_broken_payload_concerns_its_own_request_only(bundle: Bundle) -> None:
    row = raw_row(bundle)
    served = Served(Segments(bundle, bundle.work), None, batch=8)
    found = served.run(asked_of(bundle, row, broken=3), lambda: None)
    alone = [served.run([job], lambda: None)[0] for job in asked_of(bundle, row)]
    assert isinstance(found[3], RemoteProtocolError)
    for place in {*range(8)} - {3}:
        np.testing.assert_allclose(outputs_of(found)[place], outputs_of(alone)[place], atol=TOLERANCE)


@pytest.mark.parametrize(
    "fails", [lambda: ValueError("this graph takes one sample"), None], ids=["raises", "gives one"]
)
def test_where_a_batch_fails_its_requests_are_computed_one_by_one(bundle: Bundle, fails: Any) -> None:
    segments = Segments(bundle, bundle.work)

    def tails(arrays: list[np.ndarray], *others: Any) -> np.ndarray:
        if len(arrays) > 1 and fails:
            raise fails()
        if np.all(arrays[0] == 0):
            raise MemoryError
        return segments.tails(arrays[:1], *others)

    row, jobs = raw_row(bundle), asked_of(bundle, raw_row(bundle))
    jobs[5] = Admit(b"5", jobs[5].request, bytes(len(jobs[5].payload)), 0.0, bundle.held)
    broken = SimpleNamespace(bundle=bundle, decoded=segments.decoded, tails=tails)
    found = Served(broken, None, batch=8).run(jobs, lambda: None)  # type: ignore[arg-type]
    assert isinstance(found[5], MemoryError)
    for place in {*range(8)} - {5}:
        alone = segments.tail(jobs[place].payload, bundle.space.decisions[row])
        np.testing.assert_array_equal(outputs_of(found)[place], alone)


def test_known_outputs_are_not_computed_again_within_a_batch(bundle: Bundle) -> None:
    from runtime.mec.tails import Tails

    row = raw_row(bundle)
    served = Served(Segments(bundle, bundle.work), None, tails=Tails(1 << 20), batch=8)
    first = served.run(asked_of(bundle, row, count=2), lambda: None)
    served.learn(row, first, 0.01)
    again = served.run(asked_of(bundle, row, count=4), lambda: None)
    assert [isinstance(one, Ran) and one.cached for one in again] == [True, True, False, False]
    for one, other in zip(outputs_of(first), outputs_of(again), strict=False):
        np.testing.assert_array_equal(one, other)


@pytest.mark.realtime
@pytest.mark.parametrize(("batch", "tolerance"), [(None, 0.0), (32, TOLERANCE)], ids=["one by one", "in batches"])
def test_64_devices_get_the_answers_that_each_would_get_alone(
    bundle: Bundle, batch: int | None, tolerance: float
) -> None:
    row, devices, seconds = raw_row(bundle), 64, 1.5
    period_s = 0.25 if batch is None else 0.1  # one by one, each shall be served on a busy machine, too
    with MecServer(WORKLOAD, "tcp://127.0.0.1:*", batch=batch) as mec:
        mec.start()
        clients = [
            Client(n, period_s, Dealer(mec.endpoint), payload_of(bundle, row, n), outputs=[]) for n in range(devices)
        ]
        clients[7].payload = clients[7].payload[:-1]
        try:
            play(clients, bundle, row, budget_s=30.0, seconds=seconds)
        finally:
            for client in clients:
                client.dealer.close()
    segments, decision = Segments(bundle, bundle.work), bundle.space.decisions[row]
    assert {each["ending"] for each in clients[7].rows} <= {"payload", "busy", "lost"}
    assert "payload" in {each["ending"] for each in clients[7].rows}
    for client in clients[:7] + clients[8:]:
        alone = segments.tail(client.payload, decision)
        assert client.outputs
        for outputs in client.outputs:
            together = np.frombuffer(outputs, np.float32).reshape(alone.shape)
            np.testing.assert_allclose(together, alone, rtol=0.0, atol=tolerance)
    assert (mec.counts.batched > 0) is (batch is not None)
    assert mec.counts.failed == 0


def test_an_emulated_mec_computes_one_request_at_a_time_and_says_so() -> None:
    log: list[str] = []
    with MecServer(WORKLOAD, "tcp://127.0.0.1:*", slowdown=5.0, batch=8, log=log.append):
        assert log == ["a MEC that is emulated to be 5 times slower computes one request at a time"]


def test_a_batch_of_none_is_refused() -> None:
    with pytest.raises(UsageError, match="got batch=0; expected 1 or more"):
        MecServer(WORKLOAD, "tcp://127.0.0.1:*", batch=0)
