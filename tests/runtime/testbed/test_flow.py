"""Bytes on an emulated link: they arrive by its rate and its delay, in the order in which they were sent."""

from __future__ import annotations

import math
import socket
import time

import pytest

from runtime.testbed.flow import Flow
from runtime.testbed.proxy import Proxy


def test_bytes_arrive_when_the_rate_and_the_delay_let_them() -> None:
    flow = Flow()
    flow.push(b"a" * 125, now_s=10.0, rate_bps=1000.0, delay_s=0.5)
    flow.push(b"b" * 125, now_s=10.0, rate_bps=1000.0, delay_s=0.5)
    assert flow.pop(11.4) == b""
    assert flow.pop(11.5) == b"a" * 125
    assert flow.pop(12.5) == b"b" * 125


def test_a_shorter_delay_lets_nothing_overtake() -> None:
    flow = Flow()
    flow.push(b"first", now_s=0.0, rate_bps=math.inf, delay_s=1.0)
    flow.push(b"second", now_s=0.1, rate_bps=math.inf, delay_s=0.0)
    assert flow.pop(0.9) == b""
    assert flow.pop(1.0) == b"firstsecond"


@pytest.mark.parametrize(("pace", "least_s"), [({"delay_s": 0.1}, 0.2), ({"uplink_bps": 80_000.0}, 0.2)])
def test_a_proxy_delays_both_ways_and_narrows_one(pace: dict[str, float], least_s: float) -> None:
    sent = bytes(range(250)) * 8  # 2 kB: 0.2 s at 80 kbit/s
    with socket.create_server(("127.0.0.1", 0)) as server, Proxy(server.getsockname()) as proxy:
        proxy.pace(**pace)
        with socket.create_connection(("127.0.0.1", proxy.port)) as client:
            began_s = time.monotonic()
            client.sendall(sent)
            there, _ = server.accept()
            with there:
                received = b""
                while len(received) < len(sent):
                    received += there.recv(4096)
                there.sendall(b"thanks")
                assert client.recv(100) == b"thanks"
            assert received == sent
            assert time.monotonic() - began_s >= least_s
