"""The wire: what is sent is what arrives, and hostile bytes raise one error type."""

from __future__ import annotations

import contextlib

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from controller.errors import RemoteProtocolError
from runtime.protocol import wire
from runtime.protocol.operator_messages import Ask, Chunk, Fetch, Propose, Report, Rollback

_ids = st.integers(1, wire.MAX_ID)
_us = st.integers(0, 3_600_000_000)

HELD = wire.Held("campus", "ab" * 32, "cd" * 32)
REQUEST = wire.InferRequest(7, 2591, 88)
EXAMPLES: list[tuple[wire.AnyMessage, bytes]] = [
    (wire.Hello("camera-1", HELD), b""),
    (wire.Welcome("m-1", HELD, 4.0), b""),
    (REQUEST, bytes(range(200))),
    (wire.InferReply(7, 400, 1900), bytes(40)),
    (wire.Reject(7, wire.RejectReason.BUSY, "64 requests wait"), b""),
    (wire.Ping(1), b""),
    (wire.Ping(2), bytes(1024)),
    (wire.Pong(2), b""),
    (wire.Bye(), b""),
    (wire.with_reference(REQUEST, 4, 0x89ABCDEF), b"x"),
    (Ask(1), b""),
    (Propose(2), b"p"),
    (Chunk(3, "ab" * 32, 7), b"c"),
    (Rollback(4, "garments-policy"), b""),
    (Fetch(5, "garments"), b""),
    (Fetch(6, "garments", "cd" * 32, 1 << 20), b""),
    (Report(6, 12), b"{}"),
]
#: The same bytes on every machine and in every build of this version.
BYTES = {
    0: "4d50049301a863616d6572612d3193a663616d707573d940" + "6162" * 32 + "d940" + "6364" * 32,
    1: "4d50049402a36d2d3193a663616d707573d940" + "6162" * 32 + "d940" + "6364" * 32 + "cb4010000000000000",
    2: "4d5004960307cd0a1f580000",
    3: "4d5004940407cd0190cd076c",
    4: "4d500495050703b036342072657175657374732077616974" + "00",
    5: "4d5004920601",
    7: "4d5004920702",
    8: "4d50049108",
    9: "4d5004960307cd0a1f5803ce89abcdef",
}


@st.composite
def requests(draw: st.DrawFn) -> tuple[wire.InferRequest, bytes]:
    message = wire.InferRequest(draw(_ids), draw(st.integers(0, (1 << 24) - 1)), draw(st.integers(0, 3_600_000)))
    message = wire.with_reference(message, draw(st.integers(0, wire.MAX_ID)), draw(st.integers(0, 2**32 - 1)))
    return message, draw(st.binary(min_size=1, max_size=64))


@st.composite
def replies(draw: st.DrawFn) -> tuple[wire.InferReply, bytes]:
    return wire.InferReply(draw(_ids), draw(_us), draw(_us)), b"\x01" * (4 * draw(st.integers(1, 60)))


def through(message: wire.AnyMessage, buffer: wire.Buffer) -> tuple[wire.AnyMessage, bytes]:
    got, got_buffer = wire.decode([bytes(part) for part in wire.encode(message, buffer)])
    return got, bytes(got_buffer)


def is_refused_or_legal(parts: list[bytes]) -> None:
    """The only two things that hostile bytes may do."""
    with contextlib.suppress(RemoteProtocolError):
        message, _ = wire.decode(parts)
        assert isinstance(message, wire.Message)


@pytest.mark.parametrize(("message", "buffer"), EXAMPLES, ids=lambda v: type(v).__name__)
def test_every_message_survives_the_round_trip(message: wire.AnyMessage, buffer: bytes) -> None:
    assert through(message, buffer) == (message, buffer)


@given(st.one_of(requests(), replies()))
def test_requests_and_replies_of_any_content_survive_the_round_trip(
    sent: tuple[wire.AnyMessage, bytes],
) -> None:
    assert through(*sent) == sent


@pytest.mark.parametrize(("number", "header"), BYTES.items())
def test_every_message_has_the_bytes_of_the_table(number: int, header: str) -> None:
    message, buffer = EXAMPLES[number]
    assert bytes(wire.encode(message, buffer)[0]).hex() == header
    assert wire.decode([bytes.fromhex(header), *([buffer] if buffer else [])])[0] == message


@given(requests())
def test_a_request_has_at_most_30_bytes_of_header(request: tuple[wire.InferRequest, bytes]) -> None:
    assert len(wire.encode(*request)[0]) <= 30


@pytest.mark.parametrize(("message", "buffer"), EXAMPLES, ids=lambda v: type(v).__name__)
def test_a_header_cut_at_any_byte_is_refused(message: wire.AnyMessage, buffer: bytes) -> None:
    header, *rest = wire.encode(message, buffer)
    for length in range(len(header)):
        with pytest.raises(RemoteProtocolError):
            wire.decode([header[:length], *rest])


@pytest.mark.parametrize(("message", "buffer"), EXAMPLES, ids=lambda v: type(v).__name__)
def test_bytes_after_the_header_are_refused(message: wire.AnyMessage, buffer: bytes) -> None:
    header, *rest = wire.encode(message, buffer)
    with pytest.raises(RemoteProtocolError):
        wire.decode([bytes(header) + b"\x00", *rest])


@pytest.mark.parametrize(("message", "buffer"), EXAMPLES, ids=lambda v: type(v).__name__)
def test_every_bit_flip_is_refused_or_still_legal(message: wire.AnyMessage, buffer: bytes) -> None:
    header, *rest = (bytes(part) for part in wire.encode(message, buffer))
    for bit in range(8 * len(header)):
        flipped = bytearray(header)
        flipped[bit // 8] ^= 1 << (bit % 8)
        is_refused_or_legal([bytes(flipped), *rest])


@settings(max_examples=300)
@given(st.lists(st.binary(max_size=200), max_size=4), st.booleans())
def test_random_bytes_are_refused_or_legal(parts: list[bytes], with_preamble: bool) -> None:
    if with_preamble and parts:
        parts[0] = wire.PREAMBLE + parts[0]
    is_refused_or_legal(parts)


_json_like = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats() | st.text(max_size=9) | st.binary(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)


@settings(max_examples=300)
@given(st.sampled_from(EXAMPLES), st.data())
def test_a_field_of_any_other_value_is_refused_or_legal(
    example: tuple[wire.AnyMessage, bytes], data: st.DataObject
) -> None:
    message, buffer = example
    fields = msgspec.msgpack.decode(msgspec.msgpack.encode(message))
    fields[data.draw(st.integers(0, len(fields) - 1))] = data.draw(_json_like)
    is_refused_or_legal([wire.PREAMBLE + msgspec.msgpack.encode(fields), buffer])


@pytest.mark.parametrize("version", [0, 1, 2, 3, 5, 255])
def test_another_version_is_named_in_the_error(version: int) -> None:
    header = wire.encode(wire.Bye())[0]
    with pytest.raises(wire.OtherVersionError, match=f"protocol {version}; expected protocol 4") as caught:
        wire.decode([b"MP" + bytes([version]) + bytes(header)[3:]])
    assert (caught.value.version, caught.value.is_hello) == (version, False)


def test_ids_begin_anew_after_the_last_and_older_ones_are_still_known() -> None:
    assert [wire.next_id(0), wire.next_id(1), wire.next_id(wire.MAX_ID)] == [1, 2, 1]
    assert all(wire.was_issued(number, last_id=3) for number in (3, 1, wire.MAX_ID, wire.MAX_ID - 1000))
    assert not any(wire.was_issued(number, last_id=3) for number in (4, 77, wire.MAX_ID // 2 - 10))


@given(_ids, _ids)
def test_a_reference_is_the_one_that_was_named_also_across_the_last_id(request_id: int, reference_id: int) -> None:
    request = wire.with_reference(wire.InferRequest(request_id, 0, 0), reference_id, 5)
    assert request.reference_id == (0 if reference_id == request_id else reference_id)
    assert wire.with_reference(wire.InferRequest(2, 0, 0), wire.MAX_ID, 5).reference_back == 2


def test_the_reference_of_the_frame_before_adds_four_bytes() -> None:
    alone = wire.InferRequest(3000, 1200, 150)
    assert len(wire.encode(alone)[0]) == 15
    assert len(wire.encode(wire.with_reference(alone, 2998, 0x89ABCDEF))[0]) == 19


@given(st.text(max_size=2000))
def test_words_that_were_made_plain_may_cross_and_others_with_control_characters_may_not(text: str) -> None:
    reject = wire.Reject(1, wire.RejectReason.FAILED, wire.plain(text))
    assert through(reject, b"")[0] == reject
    if text != wire.plain(text) and any(letter < " " for letter in text):
        with pytest.raises(RemoteProtocolError):
            wire.decode(wire.encode(msgspec.structs.replace(reject, text=text)))


@given(st.floats(allow_nan=False))
def test_a_duration_of_any_length_becomes_one_that_may_cross(duration_s: float) -> None:
    reply = wire.InferReply(1, wire.whole_us(duration_s), 0)
    assert through(reply, bytes(4))[0] == reply
    assert through(wire.InferRequest(1, 0, wire.whole_ms(duration_s)), b"x")


@pytest.mark.parametrize("parts", [[], [b"", b"", b""], [wire.PREAMBLE + b"\x00" * wire.MAX_HEADER_BYTES]])
def test_too_few_too_many_and_too_long_parts_are_refused(parts: list[bytes]) -> None:
    with pytest.raises(RemoteProtocolError, match="expected"):
        wire.decode(parts)


@pytest.mark.parametrize(
    ("message", "size"),
    [
        (wire.InferReply(1, 0, 0), 39),
        (wire.InferReply(1, 0, 0), 0),
        (wire.InferReply(1, 0, 0), wire.MAX_PART_BYTES + 4),
        (REQUEST, 0),
        (REQUEST, wire.MAX_PART_BYTES + 1),
        (wire.Ping(1), wire.MAX_PADDING_BYTES + 1),
        (wire.Bye(), 1),
    ],
)
def test_a_buffer_that_does_not_fit_its_header_is_refused(message: wire.AnyMessage, size: int) -> None:
    with pytest.raises(RemoteProtocolError, match=type(message).__name__):
        wire.decode([wire.PREAMBLE + msgspec.msgpack.encode(message), bytes(size)])


@pytest.mark.parametrize("fields", [[4, 1, float("nan"), 0], [4, 1, 1.0, 0]])
def test_what_is_no_whole_number_is_refused(fields: list[object]) -> None:
    with pytest.raises(RemoteProtocolError, match="malformed"):
        wire.decode([wire.PREAMBLE + msgspec.msgpack.encode(fields), bytes(4)])


def test_a_slowdown_that_is_no_number_is_refused() -> None:
    welcome = [2, "m-1", msgspec.to_builtins(HELD), float("nan")]
    with pytest.raises(RemoteProtocolError, match="malformed"):
        wire.decode([wire.PREAMBLE + msgspec.msgpack.encode(welcome)])


def test_a_received_buffer_is_not_copied() -> None:
    parts = [bytearray(part) for part in wire.encode(REQUEST, bytes(16))]
    _, buffer = wire.decode(parts)
    parts[1][0] = 255
    assert buffer[0] == 255
