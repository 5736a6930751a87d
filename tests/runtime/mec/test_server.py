"""The MEC's queue in simulated time: what is emulated takes its time exactly, what is real takes what it takes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from support.simulated import FAST as LOCAL
from support.simulated import HELD, OFFLOAD, SPLIT, SimClock, table

from runtime.config.sections.admission import OPEN_ADMISSION, AdmissionSection
from runtime.link.router import Incoming
from runtime.link.transport import MAX_WAIT_S
from runtime.mec.bundles import Bundles
from runtime.mec.loop import MecLoop
from runtime.mec.records import RequestRecord
from runtime.mec.served import Served
from runtime.observe.repeats import AT_ONCE, Repeats
from runtime.protocol import wire
from runtime.protocol.mec_session import MecSession

COMPUTE_S, SEND_S = 0.003, 0.0005
REQUESTS = 4
SIM_BUNDLE = SimpleNamespace(payload_shape=lambda *_: (4,), held=HELD)


@dataclass
class SimRouter:
    """Everything arrives at once; a message takes SEND_S to go out."""

    clock: SimClock
    inbox: list[wire.AnyMessage | Incoming]  # of one peer, unless it says which
    sent: list[wire.AnyMessage] = field(default_factory=list)
    sent_to: list[bytes] = field(default_factory=list)
    cut_off: list[bytes] = field(default_factory=list)

    def receive(self) -> Iterator[Incoming]:
        arrived, self.inbox = [m if isinstance(m, Incoming) else incoming(m) for m in self.inbox], []
        return (each for each in arrived if each.peer not in self.cut_off)

    def disconnect(self, peer: bytes, bar: bool = True) -> bool:
        self.cut_off.append(peer)
        return True

    def wait(self, timeout_s: float) -> None:
        if not self.inbox:
            self.clock.advance(min(timeout_s, MAX_WAIT_S))

    def send(self, peer: bytes, parts: Any) -> bool:
        self.clock.advance(SEND_S)
        self.sent.append(wire.decode(parts)[0])
        self.sent_to.append(peer)
        return True


def incoming(message: wire.AnyMessage, peer: bytes = b"peer") -> Incoming:
    return Incoming(peer, wire.encode(message, bytes(4) if isinstance(message, wire.InferRequest) else b""))


def served(slowdown: float) -> list[wire.InferReply]:
    """Replies to REQUESTS requests that arrive together."""
    clock, costs = SimClock(), table()
    asked = [wire.InferRequest(n, OFFLOAD, 1000) for n in range(1, REQUESTS + 1)]
    router = SimRouter(clock, [wire.Hello("sim", HELD), *asked])

    def tail(*_: object) -> np.ndarray:
        clock.advance(COMPUTE_S)
        return np.zeros((1, 1), np.float32)

    segments = SimpleNamespace(decoded=lambda payload, *_: payload, tails=tail, bundle=SIM_BUNDLE)
    session = MecSession("mec-0", [HELD], slowdown)
    served = Served(segments, costs)  # type: ignore[arg-type]
    server = MecLoop(router, session, Bundles([served]), slowdown=slowdown, clock=clock)  # type: ignore[arg-type]
    server.serve(lambda: server.counts.served == REQUESTS)
    return [message for message in router.sent if isinstance(message, wire.InferReply)]


def test_an_emulated_mec_goes_from_one_request_to_the_next_at_once() -> None:
    replies, tail_ms = served(slowdown=5.0), 5.0 * 4.0
    assert [reply.mec_ms for reply in replies] == pytest.approx([tail_ms] * REQUESTS)
    waits = np.diff([reply.queue_ms for reply in replies])
    assert waits == pytest.approx([tail_ms] * (REQUESTS - 1))


def test_a_mec_that_is_used_as_it_is_counts_all_its_time() -> None:
    replies = served(slowdown=1.0)
    waits = np.diff([reply.queue_ms for reply in replies])
    assert waits == pytest.approx([1e3 * (COMPUTE_S + SEND_S)] * (REQUESTS - 1))


# What a MEC does beside serving --------------------------------------------------------------------------------


@dataclass
class Stages:
    """A warm-up of so many stages, each of which takes COMPUTE_S."""

    clock: SimClock
    left: int
    began_s: list[float] = field(default_factory=list)
    preferred: list[str] = field(default_factory=list)

    def step(self) -> bool:
        if not self.left:
            return False
        self.left -= 1
        self.began_s.append(self.clock())
        self.clock.advance(COMPUTE_S)
        return True

    def prefer(self, model: str) -> None:
        self.preferred.append(model)


class Kept(list[RequestRecord]):
    """A sink that keeps everything."""

    def add(self, record: RequestRecord) -> None:
        self.append(record)

    def close(self) -> None:
        pass


class Bench:
    """A server in simulated time, whose tail does what a test says."""

    def __init__(
        self,
        *,
        slowdown: float = 1.0,
        warm_stages: int = 0,
        tail: Callable[[], None] | None = None,
        admission: AdmissionSection = OPEN_ADMISSION,
        batch: int = 1,
    ) -> None:
        self.records = Kept()
        self.clock, self.costs, self.log = SimClock(), table(), list[str]()
        self.router = SimRouter(self.clock, [])
        self.warm_up = Stages(self.clock, warm_stages)
        self.stop_s = self.clock() + 100.0

        def run(samples: list[object], _decision: object, pause: Callable[[], None]) -> np.ndarray:
            for _ in range(4):
                pause()
                self.clock.advance(COMPUTE_S / 4)
            if tail:
                tail()
            return np.zeros((len(samples), 1), np.float32)

        segments = SimpleNamespace(decoded=lambda payload, *_: payload, tails=run, bundle=SIM_BUNDLE)
        served = Served(segments, self.costs, warm_up=self.warm_up, batch=batch)  # type: ignore[arg-type]
        self.server = MecLoop(
            self.router,  # type: ignore[arg-type]
            MecSession("mec-0", [HELD], slowdown),
            Bundles([served]),
            slowdown=slowdown,
            admission=admission,
            sinks=[self.records],
            clock=self.clock,
            log=Repeats(self.log.append, self.clock),  # as every log of a process
        )

    def serve(self, *messages: wire.AnyMessage | Incoming, for_s: float = 1.0) -> list[wire.AnyMessage]:
        """What the MEC says before it is stopped after so long, and when it leaves."""
        self.router.inbox = [wire.Hello("sim", HELD), *messages]
        self.stop_s = self.clock() + for_s
        self.server.serve(lambda: self.clock() >= self.stop_s)
        return self.router.sent

    def answers(self, *messages: wire.AnyMessage | Incoming, for_s: float = 1.0) -> dict[int, object]:
        """Request id -> "reply" or the reason of its rejection."""
        sent = self.serve(*messages, for_s=for_s)
        replies = {message.request_id: "reply" for message in sent if isinstance(message, wire.InferReply)}
        return replies | {message.request_id: message.reason for message in sent if isinstance(message, wire.Reject)}


def offload(request_id: int, row: int = OFFLOAD) -> wire.InferRequest:
    return wire.InferRequest(request_id, row, 60_000)


def test_a_mec_warms_up_while_it_has_nothing_to_do_and_once_only() -> None:
    bench = Bench(warm_stages=7)
    bench.serve()
    assert (bench.warm_up.left, len(bench.warm_up.began_s)) == (0, 7)


def test_a_request_waits_for_one_stage_of_the_warm_up_at_most() -> None:
    bench = Bench(warm_stages=1000)
    (reply,) = [m for m in bench.serve(offload(1)) if isinstance(m, wire.InferReply)]
    assert reply.queue_us <= COMPUTE_S * 1e6 + SEND_S * 2e6
    assert bench.warm_up.preferred == ["net"]


def test_a_warm_up_that_fails_costs_no_request() -> None:
    bench = Bench(warm_stages=3)
    bench.warm_up.step = fails(MemoryError())  # type: ignore[method-assign]
    assert bench.answers(offload(1)) == {1: "reply"}
    assert bench.log == ["cannot warm up: MemoryError: "]


def test_a_stop_in_an_emulated_tail_of_a_minute_ends_within_a_second() -> None:
    bench = Bench(slowdown=15_000.0)
    answers = bench.answers(*map(offload, range(1, 6)), for_s=0.5)
    assert answers == dict.fromkeys(range(1, 6), wire.RejectReason.CLOSING)
    assert bench.clock() - bench.stop_s < 1.0
    assert isinstance(bench.router.sent[-1], wire.Bye)


def test_a_stop_finishes_a_quick_request_and_rejects_the_rest() -> None:
    bench = Bench(slowdown=20.0)  # 80 ms each
    answers = bench.answers(*map(offload, range(1, 6)), for_s=0.1)
    assert answers == {1: "reply", 2: "reply"} | dict.fromkeys((3, 4, 5), wire.RejectReason.CLOSING)


def fails(error: Exception) -> Callable[[], bool]:
    def fail() -> bool:
        raise error

    return fail


@pytest.mark.parametrize("error", [MemoryError(), RuntimeError("can't allocate memory"), OSError("disk")])
def test_whatever_a_request_makes_fail_is_its_own_failure(error: Exception) -> None:
    bench = Bench(tail=fails(error))
    answers = bench.answers(*map(offload, range(1, 40)))
    assert answers == dict.fromkeys(range(1, 40), wire.RejectReason.FAILED)
    assert len(bench.log) == AT_ONCE
    assert bench.server.counts.failed == 39


@pytest.mark.parametrize("row", [LOCAL, 4, (1 << 24) - 1])
def test_a_row_that_sends_nothing_or_is_not_there_is_refused_before_it_is_queued(row: int) -> None:
    assert Bench().answers(offload(1, row)) == {1: wire.RejectReason.ILLEGAL}


def test_what_peers_cause_to_be_logged_does_not_grow_with_their_messages() -> None:
    bench = Bench()
    others = [wire.Hello("x", wire.Held(f"w{number}", "a", "b")) for number in range(500)]
    bench.serve(*others)
    assert bench.server.counts.refused == 500
    assert len(bench.log) == AT_ONCE


# Overload ------------------------------------------------------------------------------------------------------------


def of(peer: bytes, *messages: wire.AnyMessage) -> list[Incoming]:
    return [incoming(message, peer) for message in (wire.Hello(peer.decode(), HELD), *messages)]


def test_devices_take_turns_whoever_asked_first() -> None:
    bench = Bench(admission=AdmissionSection())
    many, few = of(b"many", *map(offload, range(1, 7))), of(b"few", offload(101), offload(102))
    sent = bench.serve(*many, *few)
    assert [m.request_id for m in sent if isinstance(m, wire.InferReply)] == [1, 101, 2, 102, 3, 4, 5, 6]


def test_a_request_without_a_chance_is_refused_at_its_arrival_with_the_wait_that_it_would_have() -> None:
    bench = Bench(slowdown=25.0, admission=AdmissionSection())  # 100 ms each
    late = wire.InferRequest(9, OFFLOAD, 250)
    sent = bench.serve(*of(b"a", offload(1)), *of(b"b", offload(2)), *of(b"c", late))
    (reject,) = [m for m in sent if isinstance(m, wire.Reject)]
    assert (reject.request_id, reject.reason, reject.queue_us) == (9, wire.RejectReason.BUSY, 200_000)
    assert sent.index(reject) < min(sent.index(m) for m in sent if isinstance(m, wire.InferReply))


def test_a_flood_is_answered_a_little_and_cut_off_and_the_others_are_served() -> None:
    bench = Bench(admission=AdmissionSection(device_message_rate=100.0))
    flood = of(b"flood", *map(offload, range(1, 2001)))
    sent = bench.serve(*flood, *of(b"good", offload(7777)))
    assert bench.router.cut_off == [b"flood"]
    assert 7777 in [m.request_id for m in sent if isinstance(m, wire.InferReply)]
    assert bench.router.sent_to.count(b"flood") < 110
    served = [m.request_id for m in sent if isinstance(m, wire.InferReply)]
    assert len(served) < 5  # what waited when its connection was closed is not computed
    assert bench.server.counts.shed > 60
    assert bench.server.counts.cut_off == 1
    assert bench.log == ["cut off a device that sends more than it may"]


@pytest.mark.parametrize("parts", [wire.encode(wire.Ping(1)), [b"garbage"]], ids=["pings", "garbage"])
def test_what_is_shed_and_is_no_request_gets_no_answer(parts: list[bytes]) -> None:
    bench = Bench(admission=AdmissionSection(device_message_rate=10.0))
    bench.serve(*of(b"a"), *[Incoming(b"a", parts)] * 60)
    assert bench.router.sent_to.count(b"a") < 15
    assert bench.router.cut_off == []


def test_two_connections_of_one_user_share_its_limits_and_a_new_one_is_cut_off_at_once() -> None:
    bench = Bench(admission=AdmissionSection(device_queue_limit=3, device_message_rate=100.0))
    messages = [*of(b"1", offload(1), offload(2)), *of(b"2", offload(3), offload(4), *map(offload, range(10, 3000)))]
    answers = bench.answers(*[m._replace(user="camera") for m in [*messages, *of(b"3", offload(5000))]])
    assert [answers[number] for number in (1, 2, 4)] == ["reply", "reply", wire.RejectReason.BUSY]
    assert answers[3] is wire.RejectReason.BUSY  # it waited when its connection was closed
    assert 5000 not in answers
    assert bench.router.cut_off == [b"2", b"3"]


# Batches -------------------------------------------------------------------------------------------------------


def test_what_waits_is_computed_together_once_it_is_known_how_long_that_takes() -> None:
    bench = Bench(batch=8)
    assert bench.answers(*map(offload, range(1, 28))) == dict.fromkeys(range(1, 28), "reply")
    # Each size is run twice before the next one is tried; the simulated MEC takes no longer for eight than for one.
    assert [record.together for record in bench.records] == [1, 1, *[2] * 4, *[4] * 8, *[8] * 8, *[4] * 4, 1][:27]
    assert [record.request_id for record in bench.records] == list(range(1, 28))
    assert bench.server.counts.batched == sum(record.together > 1 for record in bench.records)
    for record in bench.records:
        assert record.mec_s == pytest.approx(COMPUTE_S)


def test_without_a_limit_above_one_nothing_is_computed_together() -> None:
    bench = Bench()
    bench.serve(*map(offload, range(1, 28)))
    assert {record.together for record in bench.records} == {1}


def test_requests_of_other_kinds_are_not_computed_together() -> None:
    bench = Bench(batch=8)
    rows = [OFFLOAD, SPLIT] * 16
    assert set(bench.answers(*(offload(n, row) for n, row in enumerate(rows, 1))).values()) == {"reply"}
    # All are of one device, whose requests keep their order.
    assert {record.together for record in bench.records} == {1}


def test_a_stop_in_a_batch_rejects_every_request_of_it() -> None:
    bench = Bench(batch=4, tail=lambda: bench.clock.advance(0.15))
    answers = bench.answers(*map(offload, range(1, 40)), for_s=0.7)
    assert set(answers) == set(range(1, 40))
    assert set(answers.values()) == {"reply", wire.RejectReason.CLOSING}
