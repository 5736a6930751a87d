"""The link comes back: after any hole, at another address of its name, and from a peer that lies, floods or leaves."""

from __future__ import annotations

import os
import resource
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support.peers import HELD, Greeter, Keeper

from benchmarks.support.hostile import Endless, Hostile, encoded, leaving, polite, welcome
from runtime.link import lookup
from runtime.protocol import wire
from runtime.testbed.proxy import Mode, Proxy

#: A second at most until the next connection, and what a busy machine adds.
BACK_S = 4.0
#: What has no limit of its own.
SOON_S = 30.0
#: The longest look of a device whose machine is busy; one that waits for another takes longer still.
LOOK_S = 3.0


@pytest.fixture
def mec() -> Iterator[Greeter]:
    with Greeter() as running:
        yield running


class TestHoles:
    @pytest.mark.parametrize("mode", [Mode.CUT, Mode.HOLD, Mode.SWALLOW])
    def test_the_link_is_back_soon_after_a_hole_of_any_form(self, mode: Mode, mec: Greeter) -> None:
        with Proxy(mec.address) as proxy, Keeper(proxy.endpoint) as device:
            device.until(lambda: device.up, SOON_S)
            proxy.set(mode)
            assert device.until(lambda: not device.up, SOON_S) < SOON_S
            device.for_(2.5)
            proxy.set(Mode.PASS)
            assert device.until(lambda: device.up, 2 * BACK_S) < BACK_S

    def test_a_connection_that_a_router_forgot_is_replaced(self, mec: Greeter) -> None:
        with Proxy(mec.address) as proxy, Keeper(proxy.endpoint) as device:
            device.until(lambda: device.up, SOON_S)
            proxy.forget()
            device.until(lambda: not device.up, SOON_S)
            assert device.until(lambda: device.up, 2 * BACK_S) < BACK_S

    def test_a_mec_that_was_restarted_is_used_again(self) -> None:
        with Greeter() as first:
            endpoint = first.endpoint
            device = Keeper(endpoint)
            device.until(lambda: device.up, SOON_S)
        device.until(lambda: not device.up, SOON_S)
        device.for_(1.0)
        with Greeter(endpoint, "mec-2"), device:
            assert device.until(lambda: device.up, 2 * BACK_S) < BACK_S

    def test_a_mec_that_was_not_there_at_first_is_met(self, mec: Greeter) -> None:
        with Proxy(mec.address) as proxy:
            proxy.set(Mode.CUT)
            with Keeper(proxy.endpoint) as device:
                device.for_(1.0)
                proxy.set(Mode.PASS)
                assert device.until(lambda: device.up, 2 * BACK_S) < BACK_S

    def test_a_slow_handshake_is_given_more_time_than_passes_between_connections(self, mec: Greeter) -> None:
        with Proxy(mec.address) as proxy:
            proxy.set(Mode.HOLD)
            with Keeper(proxy.endpoint) as device:
                device.for_(1.8)  # connections were made and wait, as behind a long round trip
                proxy.set(Mode.PASS)
                assert device.until(lambda: device.up, 2 * BACK_S) < BACK_S
                device.for_(0.5)
                assert device.until(lambda: device.up, 2 * BACK_S) < BACK_S

    def test_hundreds_of_connections_leave_nothing_behind(self, mec: Greeter) -> None:
        with Keeper(mec.endpoint) as device:
            device.until(lambda: device.up, SOON_S)
            for round_ in range(600):
                device.link.connect()
                device.look(0.001)
                if round_ == 100:
                    before = leftovers()
            assert device.until(lambda: leftovers() <= before + 4, SOON_S) < SOON_S


def leftovers() -> int:
    """Open files and threads of this process."""
    return len(os.listdir("/proc/self/fd")) + threading.active_count()


_REAL_LOOKUP = socket.getaddrinfo


class Names:
    """A name server: addresses by host; ``hangs`` until it is let go."""

    def __init__(self) -> None:
        self.address = "127.0.0.1"
        self.hangs = threading.Event()
        self.hangs.set()
        self.asked = 0

    def getaddrinfo(self, host: str, port: int, *rest: Any, **named: Any) -> list[Any]:
        if not host.endswith(".example"):
            return _REAL_LOOKUP(host, port, *rest, **named)
        self.asked += 1
        self.hangs.wait(20)
        if not self.address:
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (self.address, port))]


class TestNames:
    @pytest.fixture
    def names(self, monkeypatch: pytest.MonkeyPatch) -> Names:
        names = Names()
        monkeypatch.setattr(socket, "getaddrinfo", names.getaddrinfo)
        return names

    def test_a_mec_at_another_address_of_its_name_is_found(self, names: Names) -> None:
        names.address = "127.0.0.5"
        with (
            Proxy(("127.0.0.1", 9), host="127.0.0.5") as old,
            Greeter(f"tcp://127.0.0.6:{old.port}") as new,
            Keeper(f"tcp://camera.example:{old.port}") as device,
        ):
            old.target = new.address
            device.until(lambda: device.up, SOON_S)
            old.set(Mode.SWALLOW)  # its host is dead: nothing is refused
            device.until(lambda: not device.up, SOON_S)
            device.for_(1.0)
            names.address = "127.0.0.6"
            assert device.until(lambda: device.up, 2 * BACK_S) < BACK_S

    def test_a_name_server_that_hangs_stops_nobody(self, names: Names, mec: Greeter) -> None:
        port = mec.address[1]
        names.hangs.clear()
        with Keeper(f"tcp://camera.example:{port}") as device:
            device.for_(2.0)
            assert device.longest_s < LOOK_S
            assert names.asked == 1  # never more than one question at a time
            names.hangs.set()
            assert device.until(lambda: device.up, 2 * BACK_S) < BACK_S

    def test_while_the_name_server_hangs_the_last_known_address_is_tried(self, names: Names, mec: Greeter) -> None:
        with Proxy(mec.address) as proxy, Keeper(f"tcp://camera.example:{proxy.port}") as device:
            device.until(lambda: device.up, SOON_S)
            names.hangs.clear()
            proxy.set(Mode.CUT)
            device.for_(1.0)
            proxy.set(Mode.PASS)
            assert device.until(lambda: device.up, 2 * BACK_S) < BACK_S
            names.hangs.set()

    def test_every_address_of_a_name_is_tried(self, monkeypatch: pytest.MonkeyPatch, mec: Greeter) -> None:
        port = mec.address[1]
        rows = [(0, 0, 0, "", (host, port)) for host in ("::1", "127.0.0.3", "127.0.0.1")]
        monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: rows)
        with Keeper(f"tcp://both.example:{port}") as device:
            assert device.until(lambda: device.up, 2 * BACK_S) < BACK_S


class TestTrouble:
    """What is told of a place where no MEC answers."""

    def test_nothing_listens(self) -> None:
        assert lookup.trouble_at(lookup.Endpoint("127.0.0.1", 9)) == "connection refused"

    def test_the_name_is_not_known(self) -> None:
        assert "cannot be resolved" in lookup.trouble_at(lookup.Endpoint("no.such.host.invalid", 5577))

    def test_something_else_listens(self) -> None:
        with socket.create_server(("127.0.0.1", 0)) as web:
            trouble = lookup.trouble_at(lookup.Endpoint(*web.getsockname()))
        assert "does not answer as a MEC would" in trouble

    def test_another_program_speaks_zeromq(self, mec: Greeter) -> None:
        assert "ZeroMQ" in lookup.trouble_at(lookup.Endpoint(*mec.address))


FLOODS = {
    "garbage": [b"garbage"],
    "pongs": encoded(wire.Pong(1)),
    "welcomes": welcome(HELD),
    "replies": encoded(wire.InferReply(1, 0, 1000), bytes(40)),
    "good-byes": encoded(wire.Bye()),
    "rejections": encoded(wire.Reject(0, wire.RejectReason.NO_SESSION, "say hello first")),
    "large": [b"x", bytes(4 << 20)],
    "many parts": [b"x"] * 2000,
}


def left_alone(why: str) -> bool:
    return "disconnected for" in why or "next try" in why


class TestHostileMec:
    @pytest.mark.parametrize("parts", FLOODS.values(), ids=FLOODS.keys())
    def test_a_flood_is_cut_off_within_bounded_time_and_lines(self, parts: list[bytes]) -> None:
        with Hostile(polite(HELD), flood=parts) as mec, Keeper(mec.endpoint) as device:
            assert device.until(lambda: any(left_alone(change.why) for change in device.changes), SOON_S) < SOON_S
            device.for_(0.8)
            assert device.until(lambda: not device.up, SOON_S) < SOON_S  # unless it is being tried again
            assert len(device.changes) < 30
            assert device.session.faults < 400
            assert device.reconnects < 10
            assert device.longest_s < LOOK_S
            assert device.looks < 4000  # nobody spins

    def test_a_message_without_end_does_not_fill_the_memory(self) -> None:
        with Endless(HELD) as mec, Keeper(mec.endpoint) as device:
            resident: list[int] = []
            pages = Path("/proc/self/statm")
            device.until(lambda: resident.append(int(pages.read_text().split()[1])) or len(device.changes) > 1, SOON_S)
            assert len(device.changes) > 1
            assert (max(resident) - resident[0]) * resource.getpagesize() < 600 << 20

    def test_a_mec_that_greets_and_leaves_in_turn_is_left_alone_for_longer_and_longer(self) -> None:
        with Hostile(leaving(HELD)) as mec, Keeper(mec.endpoint) as device:
            device.until(lambda: any("next try in 1 s" in change.why for change in device.changes), SOON_S)
            assert 2 < len(device.changes) < 16
            assert "next try in 1 s" in " ".join(change.why for change in device.changes)

    def test_a_mec_that_behaves_again_is_used_again(self) -> None:
        with Hostile(polite(HELD), flood=[b"garbage"]) as mec, Keeper(mec.endpoint) as device:
            device.until(lambda: any("disconnected for" in change.why for change in device.changes), SOON_S)
            mec.flood = None
            assert device.until(lambda: device.up, SOON_S) < SOON_S
            device.for_(1.0)
            assert device.until(lambda: device.up, 2 * BACK_S) < BACK_S
