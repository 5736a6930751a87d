"""What the kernel knows of a connection, asked over real sockets."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator

import pytest

from runtime.link.dealer import Dealer
from runtime.link.router import Router
from runtime.link.tcp_state import TcpState, tcp_state
from runtime.protocol import wire

SOON_S = 20.0


@pytest.fixture
def router() -> Iterator[Router]:
    router = Router("tcp://127.0.0.1:*")
    yield router
    router.close()


def connected(router: Router) -> Dealer:
    dealer, until_s = Dealer(router.endpoint, watch_tcp=True), time.perf_counter() + SOON_S
    while dealer.tcp_state() is None and time.perf_counter() < until_s:
        dealer.wait(0.05)
    return dealer


def test_a_connection_has_a_round_trip_and_nothing_to_send(router: Router) -> None:
    dealer = connected(router)
    try:
        state = dealer.tcp_state()
        assert state is not None
        assert 0 < state.rtt_s < 1
        assert state.queued_bytes < 1000
        assert set(state.as_json()) == {"rtt_ms", "least_rtt_ms", "delivery_mbps", "retransmitted_bytes"}
    finally:
        dealer.close()


def test_bytes_that_the_peer_does_not_take_are_queued(router: Router) -> None:
    dealer = connected(router)
    try:
        payload = bytes(1 << 20)
        for number in range(60):  # more than the queues of both sides hold; the router never reads
            dealer.send(wire.encode(wire.InferRequest(number, 1, 100), payload))
        until_s = time.perf_counter() + SOON_S
        while (state := dealer.tcp_state()) is not None and state.queued_bytes < 10_000:
            assert time.perf_counter() < until_s, state
            time.sleep(0.01)
        assert isinstance(state, TcpState)
    finally:
        dealer.close(linger_ms=0)


def test_without_a_connection_there_is_no_state() -> None:
    dealer = Dealer("tcp://127.0.0.1:9", watch_tcp=True)
    assert dealer.tcp_state() is None
    dealer.close()
    assert dealer.tcp_state() is None
    dealer.close()


def test_the_state_goes_with_the_connection(router: Router) -> None:
    dealer, until_s = connected(router), time.perf_counter() + SOON_S
    router.close()
    while dealer.tcp_state() is not None and time.perf_counter() < until_s:
        dealer.wait(0.05)
    assert dealer.tcp_state() is None
    dealer.close()


def test_what_is_no_tcp_connection_has_no_state() -> None:
    reading, writing = os.pipe()
    try:
        assert tcp_state(reading) is None
    finally:
        os.close(reading)
        os.close(writing)
    assert tcp_state(writing) is None
