"""The wire: what is sent is what arrives, and hostile bytes raise one error type."""

from __future__ import annotations

import contextlib
import math

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from controller.errors import RemoteProtocolError
from runtime import wire

_names = st.text(min_size=1, max_size=64)
_ids = st.integers(1, 2**53 - 1)
_ms = st.floats(0, 3_600_000)
_shapes = st.lists(st.integers(1, 12), min_size=1, max_size=5).map(tuple)

REQUEST = wire.InferRequest(7, 3, "alexnet", 28, 4, 2, "u8", (1, 64, 7, 7), 88.5)
EXAMPLES: list[tuple[wire.AnyMessage, bytes]] = [
    (wire.Hello("camera-1", "ab" * 32), b""),
    (wire.Welcome("m-1", "ab" * 32, 4.0), b""),
    (REQUEST, bytes(range(200))),
    (wire.InferReply(7, (1, 10), 0.4, 1.9, 2, 0.25), bytes(40)),
    (wire.Reject(7, wire.RejectReason.BUSY, "64 requests wait"), b""),
    (wire.Ping(1), b""),
    (wire.Ping(2), bytes(1024)),
    (wire.Pong(2, 0), b""),
    (wire.Bye(), b""),
]


@st.composite
def requests(draw: st.DrawFn) -> tuple[wire.InferRequest, bytes]:
    small = st.integers(0, 4096)
    message = wire.InferRequest(
        draw(_ids), draw(_ids), draw(_names), draw(st.integers(1, 1 << 16)), draw(small), draw(small),
        draw(_names), draw(_shapes), draw(_ms),
    )  # fmt: skip
    return message, draw(st.binary(min_size=1, max_size=64))


@st.composite
def replies(draw: st.DrawFn) -> tuple[wire.InferReply, bytes]:
    shape = draw(st.lists(st.integers(1, 6), min_size=1, max_size=3).map(tuple))
    message = wire.InferReply(
        draw(_ids), shape, draw(_ms), draw(_ms), draw(st.integers(0, 1 << 20)), draw(st.floats(0, 1))
    )
    return message, b"\x01" * (4 * math.prod(shape))


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
    fields[data.draw(st.sampled_from(sorted(fields)))] = data.draw(_json_like)
    is_refused_or_legal([wire.PREAMBLE + msgspec.msgpack.encode(fields), buffer])


def test_another_version_is_named_in_the_error() -> None:
    header = wire.encode(wire.Bye())[0]
    with pytest.raises(RemoteProtocolError, match="expected 4d5002"):
        wire.decode([b"MP\x01" + bytes(header)[3:]])


@pytest.mark.parametrize("parts", [[], [b"", b"", b""], [wire.PREAMBLE + b"\x00" * wire.MAX_HEADER_BYTES]])
def test_too_few_too_many_and_too_long_parts_are_refused(parts: list[bytes]) -> None:
    with pytest.raises(RemoteProtocolError, match="expected"):
        wire.decode(parts)


@pytest.mark.parametrize(
    ("message", "size"),
    [
        (wire.InferReply(1, (1, 10), 0, 0, 0, 0), 39),
        (wire.InferReply(1, (1, 10), 0, 0, 0, 0), 44),
        (wire.InferReply(1, (1 << 20, 1 << 20), 0, 0, 0, 0), 4),
        (REQUEST, 0),
        (msgspec.structs.replace(REQUEST, shape=(1,)), 4 + wire.CODEC_OVERHEAD_BYTES + 1),
        (msgspec.structs.replace(REQUEST, shape=(1 << 20,) * 5), 4),
        (wire.Ping(1), wire.MAX_PART_BYTES + 1),
        (wire.Bye(), 1),
    ],
)
def test_a_buffer_that_does_not_fit_its_header_is_refused(message: wire.AnyMessage, size: int) -> None:
    with pytest.raises(RemoteProtocolError, match=f"{type(message).__name__}|shape"):
        wire.decode([wire.PREAMBLE + msgspec.msgpack.encode(message), bytes(size)])


def test_not_a_number_is_refused() -> None:
    reply = wire.InferReply(1, (1,), float("nan"), 0, 0, 0)
    with pytest.raises(RemoteProtocolError, match="malformed"):
        wire.decode([wire.PREAMBLE + msgspec.msgpack.encode(reply), bytes(4)])


def test_a_received_buffer_is_not_copied() -> None:
    parts = [bytearray(part) for part in wire.encode(REQUEST, bytes(16))]
    _, buffer = wire.decode(parts)
    parts[1][0] = 255
    assert buffer[0] == 255
