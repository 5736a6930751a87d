"""A MEC's socket closes connections that are idle or too many, or that it is told to, and the others stay."""

from __future__ import annotations

import contextlib
import os
import resource
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Iterator

import pytest
from support.waiting import PATIENCE_S, wait_until

from runtime.link.connections import BAR_S
from runtime.link.dealer import Dealer
from runtime.link.endpoint import parse_endpoint
from runtime.link.router import Router
from runtime.link.transport import wait_for


@contextlib.contextmanager
def router(most: int = 100, idle_s: float = PATIENCE_S * 4) -> Iterator[Router]:
    opened = Router("tcp://127.0.0.1:*", most_connections=most, idle_s=idle_s)
    try:
        yield opened
    finally:
        opened.close()


@contextlib.contextmanager
def dealers(mec: Router, count: int) -> Iterator[list[Dealer]]:
    opened = [Dealer(mec.endpoint, once=True) for _ in range(count)]
    try:
        for number, dealer in enumerate(opened):
            say(mec, dealer, b"%d" % number)
        yield opened
    finally:
        for dealer in opened:
            dealer.close()


def say(mec: Router, dealer: Dealer, text: bytes) -> bytes:
    """Send until it has arrived and the connection is listed; who the sender is at the MEC."""
    heard: dict[bytes, bytes] = {}

    def arrived() -> bool:
        dealer.send([text])
        heard.update({bytes(parts[0]): peer for peer, parts, *_ in mec.receive()})
        assert mec._connections is not None
        return heard.get(text) in mec._connections._descriptors

    wait_until(arrived, f"the arrival of {text!r}")
    return heard[text]


def is_cut(mec: Router, dealer: Dealer) -> bool:
    list(mec.receive())
    return not dealer.connected


def test_a_peer_is_disconnected_and_the_others_are_not() -> None:
    with router() as mec, dealers(mec, 3) as (first, second, third):
        peer = say(mec, second, b"second")
        assert mec.disconnect(peer)
        wait_until(lambda: is_cut(mec, second), "the end of the connection")
        assert first.connected
        assert third.connected
        assert not mec.disconnect(peer)
        wait_until(lambda: list(mec.receive()) is not None and mec.connections == 2, "the count")


def test_the_address_of_a_peer_that_was_disconnected_is_barred_for_a_short_time() -> None:
    with router() as mec, dealers(mec, 2) as (flooding, good):
        mec.disconnect(say(mec, flooding, b"flooding"))
        began_s = time.monotonic()
        with contextlib.closing(Dealer(mec.endpoint)) as again:
            say(mec, again, b"again")
        assert time.monotonic() - began_s > 0.8 * BAR_S
        assert good.connected


def test_an_address_is_barred_only_if_that_is_asked_for() -> None:
    with router() as mec, dealers(mec, 1) as (known,):
        mec.disconnect(say(mec, known, b"known"), bar=False)
        assert mec._connections is not None
        assert not mec._connections._barred_until_s


def connect(mec: Router) -> Dealer:
    dealer = Dealer(mec.endpoint, once=True)
    wait_until(lambda: dealer.connected, "the connection")
    return dealer


def test_messages_of_a_connection_that_has_ended_are_not_taken_for_those_of_the_one_with_its_descriptor() -> None:
    with router() as mec:
        flooding = connect(mec)
        for _ in range(20):
            flooding.send([b"junk"])
        flooding.close(linger_ms=5000)
        time.sleep(0.3)  # until the MEC's own thread has seen the end; nothing is read meanwhile
        good = connect(mec)
        time.sleep(0.1)
        junk = list(mec.receive())
        assert len(junk) == 20
        assert not mec.disconnect(junk[0].peer)
        say(mec, good, b"good")
        assert good.connected
        assert mec._connections is not None
        good.close()
        wait_until(lambda: list(mec.receive()) is not None and mec.connections == 0, "the end of the connection")
        assert not mec._connections._descriptors
        assert not mec.disconnect(junk[0].peer)


def test_many_connections_while_nobody_reads_stop_neither_devices_nor_the_end() -> None:
    with router() as mec:
        where = parse_endpoint(mec.endpoint)
        for _ in range(1200):  # more events than a monitor holds otherwise
            socket.create_connection((where.host, where.port), timeout=PATIENCE_S).close()
        connect(mec).close()
        ending = threading.Thread(target=mec.close, daemon=True)
        ending.start()
        ending.join(PATIENCE_S)
        assert not ending.is_alive()


#: A peer that leaves while the MEC has not read all that it sent, with a ping of ZeroMQ at the end.
_GREETING = b"\xff" + bytes(7) + b"\x01\x7f\x03\x00NULL" + bytes(16) + b"\x00" + bytes(31)
_READY = b"\x04\x1c\x05READY\x0bSocket-Type\x00\x00\x00\x06DEALER"
_PING = b"\x04\x07\x04PING\x00\x00"
_LEAVE_AT_ONCE = struct.pack("ii", 1, 0)
_LEFT_UNREAD = """
import sys, time
from runtime.link.router import Router
mec = Router("tcp://127.0.0.1:*", most_connections=4)
print(mec.endpoint, flush=True)
sys.stdin.readline()
end_s, heard = time.monotonic() + 60, 0
while time.monotonic() < end_s and heard < 1000:
    heard += len(list(mec.receive()))
    mec.wait(0.01)
print(heard, flush=True)
"""


def shake_hands(peer: socket.socket, ready: bytes) -> None:
    """Speak the handshake of ZMTP, and wait until the other side has."""
    peer.sendall(_GREETING + ready)
    while len(peer.recv(4096, socket.MSG_PEEK)) < len(_GREETING + ready):
        time.sleep(0.01)


def test_a_peer_that_leaves_with_much_unread_does_not_end_the_mec() -> None:
    program = [sys.executable, "-c", _LEFT_UNREAD]
    with subprocess.Popen(program, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as mec:
        assert mec.stdout is not None
        where = parse_endpoint(mec.stdout.readline().strip())
        for _ in range(10):
            with socket.create_connection((where.host, where.port)) as peer:
                shake_hands(peer, _READY)
                peer.sendall(b"\x01\x01x\x00\x01x" * 100 + _PING)
                time.sleep(0.05)
                peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _LEAVE_AT_ONCE)
        time.sleep(0.2)
        out, _ = mec.communicate("go\n", timeout=PATIENCE_S)
    assert out == "1000\n"
    assert mec.returncode == 0


#: A device whose MEC leaves before the device has read all that it sent.
_LEFT_UNREAD_BY_DEVICE = """
import sys, time
from runtime.link.dealer import Dealer
device = Dealer(sys.argv[1], once=True)
sys.stdin.readline()
print(len(list(device.receive())), flush=True)
device.close(0)
"""


def test_a_mec_that_leaves_with_much_unread_does_not_end_the_device() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        program = [sys.executable, "-c", _LEFT_UNREAD_BY_DEVICE, f"tcp://127.0.0.1:{listener.getsockname()[1]}"]
        with subprocess.Popen(program, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as device:
            mec, _ = listener.accept()
            with mec:
                shake_hands(mec, _READY.replace(b"DEALER", b"ROUTER"))
                mec.sendall(b"\x01\x01x\x00\x01x" * 50 + _PING)
                time.sleep(0.2)
                mec.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _LEAVE_AT_ONCE)
            time.sleep(0.2)
            device.communicate("go\n", timeout=PATIENCE_S)
        assert device.returncode == 0


#: A MEC with few descriptors, 40 of which are held by others.
_FEW_DESCRIPTORS = """
import os, resource, sys, time
from runtime.link.router import Router
mec = Router("tcp://127.0.0.1:*", most_connections=4)
held = [os.dup(0) for _ in range(40)]
resource.setrlimit(resource.RLIMIT_NOFILE, (max(held) + 21, max(held) + 21))
print(mec.endpoint, flush=True)
sys.stdin.readline()
end_s = time.monotonic() + 60
while time.monotonic() < end_s and mec.closed_connections < 36:
    list(mec.receive())
    mec.wait(0.01)
time.sleep(0.5)
os.dup(0)
print("free", flush=True)
"""


def test_a_mec_without_descriptors_closes_connections_all_the_same() -> None:
    program = [sys.executable, "-c", _FEW_DESCRIPTORS]
    with subprocess.Popen(program, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as mec:
        assert mec.stdin is not None
        assert mec.stdout is not None
        where = parse_endpoint(mec.stdout.readline().strip())
        strangers = [socket.create_connection((where.host, where.port)) for _ in range(40)]
        time.sleep(0.5)  # until the MEC has accepted what it can
        out, _ = mec.communicate("go\n", timeout=PATIENCE_S)
        for stranger in strangers:
            stranger.close()
    assert out.startswith("free")


def test_waiting_works_beyond_the_descriptors_that_select_knows() -> None:
    with contextlib.ExitStack() as stack:
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(4096, hard), hard))
        stack.callback(resource.setrlimit, resource.RLIMIT_NOFILE, (soft, hard))
        for _ in range(1100):
            stack.callback(os.close, os.dup(0))
        ours, theirs = (stack.enter_context(end) for end in socket.socketpair())
        assert ours.fileno() >= 1024
        began_s = time.monotonic()
        wait_for([ours.fileno()], 0.05)
        assert time.monotonic() - began_s >= 0.045
        theirs.send(b"here")
        wait_for([ours.fileno()], 0.05)
        assert ours.recv(10) == b"here"


def test_what_a_peer_has_read_is_not_held_against_it() -> None:
    with router() as mec, dealers(mec, 1) as (good,):
        peer = say(mec, good, b"good")
        for _ in range(5):
            mec.send(peer, [bytes(1 << 20)])
            wait_until(lambda: list(good.receive()), "the arrival")
            say(mec, good, b"next")
            assert mec.unread_bytes(peer) <= 4096


def test_idle_connections_are_closed_and_those_that_speak_stay() -> None:
    with router(idle_s=0.5) as mec, dealers(mec, 2) as (busy, idle):
        began_s = time.monotonic()

        def is_over() -> bool:
            busy.send([b"here"])
            return is_cut(mec, idle)

        wait_until(is_over, "the end of the idle connection")
        assert time.monotonic() - began_s > 0.2
        assert busy.connected
        assert mec.closed_connections == 1


def test_a_peer_that_connects_and_says_nothing_at_all_is_idle_too() -> None:
    with router(idle_s=0.3) as mec:
        where = parse_endpoint(mec.endpoint)
        with socket.create_connection((where.host, where.port)) as silent:
            silent.settimeout(0.01)

            def is_over() -> bool:
                list(mec.receive())
                with contextlib.suppress(TimeoutError):
                    return not silent.recv(4096)
                return False

            wait_until(is_over, "the end of the silent connection")


def test_a_peer_of_an_old_version_of_zeromqs_protocol_is_not_heard_and_harms_nobody() -> None:
    with router() as mec:
        where = parse_endpoint(mec.endpoint)
        with socket.create_connection((where.host, where.port)) as old, dealers(mec, 1) as (good,):
            old.sendall(b"\x01\x00" + b"\x04\x00old" * 20)  # ZMTP 1: no greeting, an empty identity, then frames
            for text in (b"one", b"two", b"three"):
                say(mec, good, text)
            old.sendall(b"GET / HTTP/1.1\r\n\r\n" + bytes(range(256)) * 16)
            say(mec, good, b"four")


def test_beyond_the_most_connections_those_that_were_silent_longest_make_room() -> None:
    with router(most=8) as mec, dealers(mec, 2) as good:
        where = parse_endpoint(mec.endpoint)
        strangers = [socket.create_connection((where.host, where.port)) for _ in range(30)]
        try:

            def settled() -> bool:
                for dealer in good:
                    dealer.send([b"here"])
                list(mec.receive())
                return mec.closed_connections >= 24

            wait_until(settled, "the end of the surplus connections")
            assert mec.connections == 8
            assert all(dealer.connected for dealer in good)
        finally:
            for stranger in strangers:
                stranger.close()


def test_a_socket_that_starts_anew_watches_its_new_connections() -> None:
    with router() as mec:
        with dealers(mec, 1):
            mec._start_anew()
        with dealers(mec, 2):
            assert mec.connections == 2


@pytest.mark.parametrize("most", [None, 5])
def test_closing_twice_is_no_error(most: int | None) -> None:
    mec = Router("tcp://127.0.0.1:*", most_connections=most)
    assert mec.connections == (None if most is None else 0)
    mec.close()
    mec.close()
