"""The hostile MECs keep to ZMTP's handshake, so that a device always meets what they do after it."""

from __future__ import annotations

import socket

from support.peers import HELD

from benchmarks.support.hostile import Endless, frame, welcome
from runtime.link.endpoint import parse_endpoint

#: A message that is sent too early would arrive within this.
QUIET_S = 0.3


def received(peer: socket.socket, least: int) -> bytes:
    """At least so many bytes, and what follows until the peer is quiet."""
    got = b""
    peer.settimeout(5.0)
    while len(got) < least:
        got += peer.recv(4096)
    peer.settimeout(QUIET_S)
    try:
        return got + peer.recv(4096)
    except TimeoutError:
        return got


def test_the_endless_message_waits_for_the_ready_of_the_device() -> None:
    """libzmq drops a connection on which a message overtakes its own READY: the device would never be welcomed."""
    with Endless(HELD) as mec:
        where = parse_endpoint(mec.endpoint)
        with socket.create_connection((where.host, where.port)) as device:
            greeting = received(device, 64)
            assert greeting[64:].endswith(b"\0\0\0\x06ROUTER\x08Identity\0\0\0\0")
            device.sendall(greeting[:64])
            assert device.send(bytes((4, 6)) + b"\x05READY") == 8
            hello = frame(welcome(HELD)[0], flags=0)
            assert received(device, len(hello))[: len(hello)] == hello
