"""The MEC's queue in simulated time: what is emulated takes its time exactly, what is real takes what it takes."""

from __future__ import annotations

from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from runtime import wire
from runtime.mec import MecServer
from runtime.mec_session import MecSession
from tests.simulated import HELD, OFFLOAD, SimClock, table

COMPUTE_S, SEND_S = 0.003, 0.0005
REQUESTS = 4


@dataclass
class SimRouter:
    """Everything arrives at once; a message takes SEND_S to go out."""

    clock: SimClock
    inbox: list[wire.AnyMessage]
    sent: list[wire.AnyMessage] = field(default_factory=list)

    def receive(self) -> list[tuple[bytes, Any]]:
        buffers = {wire.InferRequest: bytes(4)}
        arrived = [(b"peer", wire.encode(message, buffers.get(type(message), b""))) for message in self.inbox]
        self.inbox = []
        return arrived

    def wait(self, timeout_s: float) -> None:
        self.clock.advance(timeout_s)

    def send(self, peer: bytes, parts: Any) -> bool:
        self.clock.advance(SEND_S)
        self.sent.append(wire.decode(parts)[0])
        return True


def served(slowdown: float) -> list[wire.InferReply]:
    """Replies to REQUESTS requests that arrive together."""
    clock, costs = SimClock(), table()
    asked = [wire.InferRequest(n, OFFLOAD, 1000) for n in range(1, REQUESTS + 1)]
    router = SimRouter(clock, [wire.Hello("sim", HELD), *asked])

    def tail(*_: object) -> np.ndarray:
        clock.advance(COMPUTE_S)
        return np.zeros((1, 1), np.float32)

    segments = SimpleNamespace(tail=tail, bundle=SimpleNamespace(payload_shape=lambda *_: (4,)))
    session = MecSession("mec-0", HELD, slowdown)
    server = MecServer(router, session, segments, costs, slowdown=slowdown, clock=clock)  # type: ignore[arg-type]
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
