"""Who is heard over real sockets: strangers, revoked keys, wrong servers, stolen ids, replayed captures, floods."""

from __future__ import annotations

import contextlib
import os
import resource
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import zmq
from support.keyed import Keyring
from support.peers import Greeter, Keeper
from support.waiting import wait_until

from runtime.link.connections import BAR_S
from runtime.link.dealer import Dealer
from runtime.link.endpoint import parse_endpoint
from runtime.link.lookup import trouble_at
from runtime.link.router import Incoming, Router
from runtime.security.curve import DeviceKeys
from runtime.security.keys import fingerprint, new_pair

SOON_S = 30.0
#: Something that must not happen is waited for this long: ten times what it takes when it does.
QUIET_S = 1.0
ANY_PORT = "tcp://127.0.0.1:*"


@pytest.fixture
def ring(tmp_path: Path) -> Keyring:
    return Keyring(tmp_path / "keys")


@pytest.fixture
def lines() -> list[str]:
    return []


@pytest.fixture
def router(ring: Keyring, lines: list[str]) -> Iterator[Router]:
    made = Router(ANY_PORT, keys=ring.of_mec(), log=lines.append)
    yield made
    made.close()


@contextlib.contextmanager
def dealer(router: Router, keys: DeviceKeys | None) -> Iterator[Dealer]:
    made = Dealer(router.endpoint, keys=keys)
    try:
        yield made
    finally:
        made.close(linger_ms=0)


def heard(router: Router, sender: Dealer, text: bytes, patience_s: float = SOON_S) -> Incoming | None:
    """Send a text again and again; the message as it arrives, None if it does not in time."""
    end_s = time.monotonic() + patience_s
    while time.monotonic() < end_s:
        sender.send([text])
        router.wait(0.02)
        for message in router.receive():
            if bytes(message.parts[0]) == text:
                return message
    return None


def answer(sender: Dealer, patience_s: float) -> bytes | None:
    end_s = time.monotonic() + patience_s
    while time.monotonic() < end_s:
        sender.wait(0.05)
        for parts in sender.receive():
            return bytes(parts[0])
    return None


class TestAdmission:
    def test_a_listed_device_is_heard_by_its_name_and_answered(self, router: Router, ring: Keyring) -> None:
        with dealer(router, ring.device("camera-1")) as device:
            message = heard(router, device, b"hello")
            assert message is not None
            assert message.user == "camera-1"
            assert router.send(message.peer, [b"welcome"])
            assert answer(device, SOON_S) == b"welcome"

    def test_a_stranger_with_a_key_is_refused_in_the_handshake(
        self, router: Router, ring: Keyring, lines: list[str]
    ) -> None:
        with dealer(router, ring.stranger("eve")) as device:
            assert heard(router, device, b"hello", QUIET_S) is None
        assert router.turned_away is not None
        assert router.turned_away.handshakes >= 1
        assert "not on the list" in lines[0]

    def test_a_stranger_without_a_key_is_not_heard(self, router: Router) -> None:
        with dealer(router, None) as device:
            assert heard(router, device, b"hello", QUIET_S) is None

    def test_a_device_does_not_talk_to_a_server_without_the_pinned_key(self, router: Router, ring: Keyring) -> None:
        camera = ring.device("camera-1")
        with dealer(router, DeviceKeys(camera.own, new_pair().public)) as device:
            assert heard(router, device, b"hello", QUIET_S) is None

    def test_a_device_with_keys_does_not_talk_plain(self, ring: Keyring) -> None:
        plain = Router(ANY_PORT)
        with dealer(plain, ring.device("camera-1")) as device:
            assert heard(plain, device, b"hello", QUIET_S) is None
        plain.close()

    def test_plain_messages_have_no_user(self) -> None:
        plain = Router(ANY_PORT)
        with dealer(plain, None) as device:
            message = heard(plain, device, b"hello")
            assert message is not None
            assert message.user == ""
        plain.close()

    def test_a_device_that_is_allowed_while_the_mec_runs_is_admitted_at_its_next_attempt(
        self, router: Router, ring: Keyring
    ) -> None:
        keys = ring.stranger("camera-2")
        with dealer(router, keys) as device:
            assert heard(router, device, b"hello", QUIET_S) is None
        ring.allow("camera-2", keys.own)
        with dealer(router, keys) as device:
            message = heard(router, device, b"hello")
            assert message is not None
            assert message.user == "camera-2"


class TestRevocation:
    def test_it_bites_on_an_open_connection_and_on_no_other(
        self, router: Router, ring: Keyring, lines: list[str]
    ) -> None:
        with dealer(router, ring.device("gone")) as gone, dealer(router, ring.device("stays")) as stays:
            first = heard(router, gone, b"hello")
            assert first is not None
            assert heard(router, stays, b"hello") is not None
            ring.revoke("gone")
            # A message that had arrived before may still be heard; after the next look at the list none is.
            assert wait_until(lambda: not router.send(first.peer, [b"late reply"]), "the revocation", SOON_S)
            assert heard(router, gone, b"again", QUIET_S) is None
            assert gone.connected  # the connection itself is open, and carries nothing
            assert not router.send(first.peer, [b"secret"])
            while (got := answer(gone, QUIET_S)) is not None:
                assert got == b"late reply"
            assert heard(router, stays, b"again") is not None
        assert router.turned_away is not None
        assert router.turned_away.messages >= 1
        assert any("key was revoked" in line for line in lines)

    def test_its_connection_is_closed_as_soon_as_it_sends_and_others_behind_its_address_may_connect(
        self, ring: Keyring
    ) -> None:
        router = Router(ANY_PORT, keys=ring.of_mec(), most_connections=100)
        with contextlib.closing(router), dealer(router, ring.device("gone")) as gone:
            assert heard(router, gone, b"hello") is not None
            ring.revoke("gone")

            def is_closed() -> bool:
                gone.send([b"again"])
                return router.connections == len(list(router.receive())) == 0

            wait_until(is_closed, "the end of the connection", SOON_S)
            began_s = time.monotonic()
            with dealer(router, ring.device("stays")) as stays:
                assert heard(router, stays, b"hello") is not None
            assert time.monotonic() - began_s < BAR_S

    def test_a_new_key_under_the_same_name_does_not_keep_the_old_connection(
        self, router: Router, ring: Keyring
    ) -> None:
        with dealer(router, ring.device("camera")) as old:
            assert heard(router, old, b"hello") is not None
            ring.revoke("camera")
            ring.allow("camera", new_pair())
            wait_until(lambda: heard(router, old, b"again", QUIET_S) is None, "the revocation", SOON_S)


class TestStolenIds:
    """A routing id says where replies go. Only the device that has it may get them."""

    @staticmethod
    @contextlib.contextmanager
    def thief(router: Router, keys: DeviceKeys, peer: bytes) -> Iterator[zmq.Socket[bytes]]:
        with zmq.Context() as context, context.socket(zmq.DEALER) as made:
            for option, value in (*keys.options, (zmq.ROUTING_ID, peer), (zmq.LINGER, 0), (zmq.SNDTIMEO, 0)):
                made.set(option, value)
            made.connect(router.endpoint)
            yield made

    def test_an_id_in_use_cannot_be_taken(self, router: Router, ring: Keyring) -> None:
        with dealer(router, ring.device("camera")) as camera:
            message = heard(router, camera, b"hello")
            assert message is not None
            with self.thief(router, ring.device("thief"), message.peer) as thief:
                end_s = time.monotonic() + QUIET_S
                while time.monotonic() < end_s:
                    with contextlib.suppress(zmq.Again):
                        thief.send(b"mine")
                    router.wait(0.02)
                    assert not list(router.receive())
                assert router.send(message.peer, [b"reply"])
                assert answer(camera, SOON_S) == b"reply"
                assert not thief.poll(100)

    def test_an_id_that_is_free_again_gets_no_message_through(
        self, router: Router, ring: Keyring, lines: list[str]
    ) -> None:
        with dealer(router, ring.device("camera")) as camera:
            message = heard(router, camera, b"hello")
        assert message is not None
        with self.thief(router, ring.device("thief"), message.peer) as thief:

            def dropped() -> bool:
                with contextlib.suppress(zmq.Again):
                    thief.send(b"mine")
                router.wait(0.02)
                assert not list(router.receive())
                return any("the connection of another device" in line for line in lines)

            wait_until(dropped, "the drop", SOON_S)

    def test_ids_cannot_be_guessed(self, ring: Keyring) -> None:
        camera = ring.device("camera")
        ids = {dict(camera.options)[zmq.ROUTING_ID] for _ in range(100)}
        assert len(ids) == 100
        assert all(len(bytes(one)) == 16 for one in ids)


class _Recorder:
    """A port that passes one connection on to a MEC and keeps both directions."""

    def __init__(self, target: tuple[str, int]) -> None:
        self.sent, self.received = bytearray(), bytearray()
        self._server = socket.create_server(("127.0.0.1", 0))
        self.endpoint = f"tcp://127.0.0.1:{self._server.getsockname()[1]}"
        threading.Thread(target=self._accept, args=(target,), daemon=True).start()

    def _accept(self, target: tuple[str, int]) -> None:
        with contextlib.suppress(OSError):
            device, _ = self._server.accept()
            mec = socket.create_connection(target)
            threading.Thread(target=self._pump, args=(device, mec, self.sent), daemon=True).start()
            self._pump(mec, device, self.received)

    @staticmethod
    def _pump(source: socket.socket, sink: socket.socket, kept: bytearray) -> None:
        with contextlib.suppress(OSError), source, sink:
            while data := source.recv(65536):
                kept += data
                sink.sendall(data)

    def close(self) -> None:
        self._server.close()


class TestCaptures:
    @pytest.fixture
    def capture(self, router: Router, ring: Keyring) -> bytes:
        """What a listed device sent in a whole session."""
        where = parse_endpoint(router.endpoint)
        recorder = _Recorder((where.host, where.port))
        device = Dealer(recorder.endpoint, keys=ring.device("camera"))
        assert heard(router, device, b"very secret picture") is not None
        device.close(linger_ms=0)
        recorder.close()
        wait_until(lambda: len(recorder.sent) > 300, "the capture", SOON_S)
        return bytes(recorder.sent)

    def test_a_capture_shows_nothing(self, capture: bytes, ring: Keyring) -> None:
        assert b"CURVE" in capture
        assert b"very secret" not in capture
        assert ring.mec.secret.encode() not in capture

    @pytest.mark.parametrize("piece", [1 << 20, 64, 7])
    def test_a_replayed_capture_is_not_heard(self, router: Router, capture: bytes, piece: int) -> None:
        assert router.turned_away is not None
        before, where = router.turned_away.handshakes, parse_endpoint(router.endpoint)
        with socket.create_connection((where.host, where.port)) as again:
            again.settimeout(QUIET_S)
            with contextlib.suppress(OSError):
                for start in range(0, len(capture), piece):
                    again.sendall(capture[start : start + piece])
            received = bytearray()
            with contextlib.suppress(OSError):
                while data := again.recv(4096):
                    received += data
        router.wait(0.1)
        assert not list(router.receive())
        assert b"READY" not in received
        assert router.turned_away.handshakes == before  # it does not even get as far as the list


class TestNewSocket:
    def test_keys_and_list_hold_after_every_connection_was_closed(self, ring: Keyring) -> None:
        full: list[bool] = []
        router = Router(ANY_PORT, most_growth_bytes=1, keys=ring.of_mec(), on_full=lambda: full.append(True))
        camera, eve = ring.device("camera"), ring.stranger("eve")
        with dealer(router, camera) as device:
            assert heard(router, device, b"hello") is not None
            ballast = bytearray(os.urandom(8 << 20))  # the process has grown
            wait_until(lambda: list(router.receive()) is not None and bool(full), "the new socket", SOON_S)
            del ballast
        with dealer(router, camera) as device, dealer(router, eve) as stranger, dealer(router, None) as nobody:
            message = heard(router, device, b"again")
            assert message is not None
            assert message.user == "camera"
            assert heard(router, stranger, b"hello", QUIET_S) is None
            assert heard(router, nobody, b"hello", QUIET_S) is None
        router.close()


def resident_bytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()


class TestFloods:
    """Handshakes cost little, and a listed device gets in between them."""

    CONNECTIONS = 300

    def test_handshakes_that_never_end_cost_bounded_memory(self, router: Router, ring: Keyring) -> None:
        where = parse_endpoint(router.endpoint)
        before = resident_bytes()
        with contextlib.ExitStack() as stack:
            for number in range(self.CONNECTIONS):
                half = stack.enter_context(socket.create_connection((where.host, where.port)))
                half.sendall([b"\xff", b"\xff" + bytes(8) + b"\x7f\x03\x00CURVE".ljust(55, b"\0")][number % 2])
            with dealer(router, ring.device("camera")) as device:
                assert heard(router, device, b"hello") is not None
        assert resident_bytes() - before < self.CONNECTIONS * (64 << 10)

    def test_strangers_by_the_hundred_cost_bounded_memory_and_one_kind_of_line(
        self, router: Router, ring: Keyring, lines: list[str]
    ) -> None:
        eve, camera = ring.stranger("eve"), ring.device("camera")
        before = resident_bytes()
        with zmq.Context() as context:
            for _ in range(self.CONNECTIONS):
                Dealer(router.endpoint, context, once=True, keys=eve).close(linger_ms=0)
            strangers = [Dealer(router.endpoint, context, once=True, keys=eve) for _ in range(self.CONNECTIONS)]
            with dealer(router, camera) as device:
                assert heard(router, device, b"hello") is not None
            assert router.turned_away is not None
            away = router.turned_away
            wait_until(lambda: away.handshakes >= self.CONNECTIONS, "their refusal", SOON_S)
            for stranger in strangers:
                stranger.close(linger_ms=0)
        assert resident_bytes() - before < 2 * self.CONNECTIONS * (64 << 10)
        assert len(set(lines)) == 1


class TestTrouble:
    """What a device says about a MEC that does not answer it."""

    def at(self, router: Router, keys: DeviceKeys | None) -> str:
        return trouble_at(parse_endpoint(router.endpoint), keys)

    def test_each_reason_has_its_sentence(self, router: Router, ring: Keyring) -> None:
        camera, eve = ring.device("camera"), ring.stranger("eve")
        assert "does not know this device's key, fingerprint" in self.at(router, eve)
        assert eve.fingerprint in self.at(router, eve)
        assert "mecpilot keys allow" in self.at(router, eve)
        wrong = DeviceKeys(camera.own, new_pair().public)
        assert f"may not have the pinned key, fingerprint {fingerprint(wrong.mec)}" in self.at(router, wrong)
        assert "speaks encrypted, this device plain" in self.at(router, None)
        assert "a ZeroMQ socket listens there" in self.at(router, camera)
        plain = Router(ANY_PORT)
        assert "speaks plain, this device encrypted" in self.at(plain, camera)
        plain.close()


class TestLink:
    def test_a_device_keeps_its_link_until_it_is_revoked_and_then_knows_why(self, ring: Keyring) -> None:
        camera = ring.device("camera")
        with Greeter(keys=ring.of_mec()) as mec, Keeper(mec.endpoint, keys=camera) as device:
            assert device.until(lambda: device.up, SOON_S) < SOON_S
            ring.revoke("camera")
            assert device.until(lambda: not device.up, SOON_S) < SOON_S
            reasons: list[str] = []
            device.until(lambda: reasons.append(device.link.trouble()) or bool(reasons[-1]), SOON_S)
            assert "does not know this device's key" in reasons[-1]
            ring.allow("camera", camera.own)
            assert device.until(lambda: device.up, SOON_S) < SOON_S
