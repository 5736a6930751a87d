"""Peers of another version: each side says so once, in words that the other one can read."""

from __future__ import annotations

import msgspec
import pytest

from controller.errors import RemoteProtocolError
from controller.timeline import HEARTBEAT_S
from runtime.protocol import wire
from runtime.protocol.device_actions import LinkChanged, LinkState, Transmit
from runtime.protocol.device_session import REFUSED_RETRY_S, DeviceSession
from runtime.protocol.mec_session import MecSession, Refused, SendTo
from runtime.protocol.old_wire import OLD_VERSIONS, old_hello, old_reject

HELD = wire.Held("campus", "d1" * 32, "e1" * 32)
#: What devices and MECs of version 2 wrote.
HELLO_2 = b"MP\x02\x83\xa4type\xa5hello\xa6device\xa6camera\xadbundle_digest\xa8abababab"
HELLO_3 = b"MP\x03\x93\x01\xa6camera\x93\xa6campus\xa4abab\xa4cdcd"
#: What a MEC of version 3 said to a device with another workload.
REJECT_3 = b"MP\x03\x95\x05\x00\x01\xb9the MEC serves workload x\x00"
PING_2 = b"MP\x02\x82\xa4type\xa4ping\xa7ping_id\x07"
REJECT_2 = (
    b"MP\x02\x85\xa4type\xa6reject\xaarequest_id\x00\xa6reason\xa6digest\xa4text\xd9:got bundle ; the MEC's is abab; "
    b"install one bundle on both\xa8queue_ms\xcb\x00\x00\x00\x00\x00\x00\x00\x00"
)


def error_of(header: bytes) -> RemoteProtocolError:
    with pytest.raises(RemoteProtocolError) as caught:
        wire.decode([header])
    return caught.value


def mec() -> MecSession:
    return MecSession("mec-1", [HELD], 1.0)


class TestMec:
    @pytest.mark.parametrize("version", [1, 2])
    def test_a_very_old_device_gets_a_reject_that_it_can_read(self, version: int) -> None:
        hello = b"MP" + bytes([version]) + HELLO_2[3:]
        sent, refused = mec().malformed(b"a", error_of(hello))
        assert isinstance(sent, SendTo)
        (header,) = wire.encode(sent.message)
        assert bytes(header[:3]) == b"MP" + bytes([version])
        fields = msgspec.msgpack.decode(header[3:])
        assert {name: fields[name] for name in ("type", "request_id", "reason")} == {
            "type": "reject",
            "request_id": 0,
            "reason": "digest",
        }
        assert f"protocol 4, the device {version}" in fields["text"]
        assert refused == Refused(fields["text"])

    def test_a_device_of_version_3_gets_a_reject_without_names(self) -> None:
        sent, refused = mec().malformed(b"a", error_of(HELLO_3))
        assert isinstance(sent, SendTo)
        (header,) = wire.encode(sent.message)
        assert bytes(header[:3]) == b"MP\x03"
        tag, request_id, reason, text, queue_us = msgspec.msgpack.decode(header[3:])
        assert (tag, request_id, reason, queue_us) == (5, 0, 1, 0)
        assert "protocol 4, the device 3" in text
        assert refused == Refused(text)

    @pytest.mark.parametrize(
        "header",
        [
            PING_2,
            HELLO_2[:-1],
            HELLO_2 + b"\0",
            b"MP\x02",
            b"MP\x05" + HELLO_2[3:],
            b"MP\x02" + b"\x91" * 900,
            HELLO_3[:-1],
            HELLO_3 + b"\0",
            b"MP\x03" + HELLO_2[3:],
            b"MP\x02" + HELLO_3[3:],
            b"MP\x03\x92\x06\x07",
        ],
    )
    def test_nothing_else_of_another_version_is_answered_or_logged(self, header: bytes) -> None:
        session = mec()
        assert session.malformed(b"a", error_of(header)) == []
        assert session.faults == 1

    @pytest.mark.parametrize("version", OLD_VERSIONS)
    def test_the_hello_by_which_a_new_device_looks_for_an_old_mec_is_passed_over(self, version: int) -> None:
        session = mec()
        assert session.malformed(b"a", error_of(old_hello(version))) == []
        session.receive(b"a", wire.Hello("camera", HELD), b"", 0.0)
        assert session.malformed(b"a", error_of(old_hello(version))) == []
        assert (session.registered, session.faults) == ((b"a",), 0)


class TestDevice:
    def test_says_an_old_hello_too_when_nobody_answers(self) -> None:
        session = DeviceSession("camera", HELD)
        said = [action for step in range(12) for action in session.tick(step * HEARTBEAT_S)]
        old = [a.message.header for a in said if isinstance(a, Transmit) and isinstance(a.message, wire.Foreign)]
        assert old == [old_hello(3), old_hello(2), old_hello(1)]
        assert said[0] == Transmit(wire.Hello("camera", HELD))

    @pytest.mark.parametrize(("version", "reject"), [(2, REJECT_2), (3, REJECT_3)])
    def test_names_both_versions_once_and_asks_again_seldom(self, version: int, reject: bytes) -> None:
        session = DeviceSession("camera", HELD)
        session.tick(0.0)
        (changed,) = session.malformed(error_of(reject), 0.1)
        assert changed == LinkChanged(
            LinkState.REFUSED, f"the MEC speaks protocol {version}, this device 4; install one version on both"
        )
        assert [session.malformed(error_of(reject), 0.2 + step) for step in range(3)] == [[]] * 3
        assert session.tick(REFUSED_RETRY_S / 2) == []

    def test_a_mec_that_was_brought_up_to_date_is_used(self) -> None:
        session = DeviceSession("camera", HELD)
        session.malformed(error_of(REJECT_2), 0.1)
        session.tick(9.0)
        session.receive(wire.Welcome("mec-2", HELD, 1.0), b"", 9.1)
        assert session.state is LinkState.UP

    def test_a_welcomed_device_does_not_leave_for_one_odd_message(self) -> None:
        session = DeviceSession("camera", HELD)
        session.receive(wire.Welcome("mec-1", HELD, 1.0), b"", 0.0)
        session.malformed(error_of(old_reject(2, "no")), 0.1)
        assert session.state is LinkState.UP
        assert session.faults == 1
