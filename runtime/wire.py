"""Which bytes cross the uplink? Messages as multipart: one small header, then at most one raw buffer.

A header is the three bytes ``MP`` and the version, then a msgpack map with the type of the message in it. The buffer
(a payload, the outputs of a model, the padding of a probe) is sent and received as it lies in memory. Every number
has bounds and every size is checked here, before anything is allocated from it; whatever is not a legal message
raises ``RemoteProtocolError`` and nothing else. Durations cross the wire, points in time never do.

A request carries all that its answer depends on, so the MEC keeps nothing per device but that it said hello.
"""

from __future__ import annotations

import enum
import math
from collections.abc import Sequence
from typing import Annotated

import msgspec
from msgspec import Meta, Struct

from controller.errors import RemoteProtocolError

VERSION = 2
PREAMBLE = b"MP" + bytes([VERSION])
#: One part of a message; a 768x576 colour image is 1.3 MB.
MAX_PART_BYTES = 4 << 20
MAX_HEADER_BYTES = 2048
#: A header and a buffer.
MOST_PARTS = 2
#: A tensor as float32; also bounds what a compressed payload may claim to unpack into.
MAX_TENSOR_BYTES = 64 << 20
#: Room that a codec may add to the largest raw form (float32) of what it encodes.
CODEC_OVERHEAD_BYTES = 4096

Buffer = bytes | bytearray | memoryview

RequestId = Annotated[int, Meta(ge=1, lt=2**53)]
Name = Annotated[str, Meta(min_length=1, max_length=64)]
Digest = Annotated[str, Meta(max_length=128)]
Text = Annotated[str, Meta(max_length=512)]
Milliseconds = Annotated[float, Meta(ge=0, le=3_600_000)]
Small = Annotated[int, Meta(ge=0, le=4096)]
Shape = Annotated[tuple[Annotated[int, Meta(ge=1, le=1 << 20)], ...], Meta(min_length=1, max_length=5)]


class RejectReason(enum.StrEnum):
    """Why the MEC did not do what was asked."""

    DIGEST = "digest"  # the two sides hold different bundles
    NO_SESSION = "no_session"  # say hello first: the MEC restarted or forgot this device
    BUSY = "busy"  # the queue is full
    EXPIRED = "expired"  # the budget was used up before the request's turn came
    ILLEGAL = "illegal"  # no such decision, or a shape that does not belong to it
    PAYLOAD = "payload"  # the codec could not read the buffer
    FAILED = "failed"  # the MEC's own fault
    CLOSING = "closing"


class Message(Struct, frozen=True, forbid_unknown_fields=True, tag_field="type", tag=str.lower):
    """Base of everything that crosses."""


class Hello(Message, frozen=True):
    """Device to MEC: who I am and which bundle I hold."""

    device: Name
    bundle_digest: Digest


class Welcome(Message, frozen=True):
    """MEC to device: we hold the same bundle. ``instance`` is new each time a MEC starts."""

    instance: Name
    bundle_digest: Digest
    mec_slowdown: Annotated[float, Meta(gt=0, le=1e6)]  # time of a tail here / in the shared profile


class InferRequest(Message, frozen=True):
    """Device to MEC: run the tail of this decision on the payload in the buffer."""

    request_id: RequestId
    frame: Annotated[int, Meta(ge=0, lt=2**53)]
    model: Name
    resolution_px: Annotated[int, Meta(ge=1, le=1 << 16)]
    exit_branch: Small
    partition_point: Small
    codec: Name
    shape: Shape  # of the tensor that the payload encodes
    remaining_budget_ms: Milliseconds  # until the device gives the answer up


class InferReply(Message, frozen=True):
    """MEC to device: the outputs, float32 in the buffer, and where the time went."""

    request_id: RequestId
    shape: Shape
    queue_ms: Milliseconds  # from arrival to the start of the tail
    mec_ms: Milliseconds  # decoding and tail, slowdown included
    queue_depth: Annotated[int, Meta(ge=0, le=1 << 20)]  # requests that still wait
    load_frac: Annotated[float, Meta(ge=0, le=1)]  # share of the last second that the MEC was busy


class Reject(Message, frozen=True):
    """MEC to device: no. ``request_id`` is 0 when no request is meant."""

    request_id: Annotated[int, Meta(ge=0, lt=2**53)]
    reason: RejectReason
    text: Text
    queue_ms: Milliseconds = 0.0  # of an expired request, from its arrival on: what a reply would have told


class Ping(Message, frozen=True):
    """Device to MEC: are you there? With padding in the buffer it probes the uplink."""

    ping_id: RequestId


class Pong(Message, frozen=True):
    """MEC to device: yes, and how long the ping lay here before it was answered."""

    ping_id: RequestId
    queue_depth: Annotated[int, Meta(ge=0, le=1 << 20)]


class Bye(Message, frozen=True):
    """Either way: I am leaving, expect nothing more."""


AnyMessage = Hello | Welcome | InferRequest | InferReply | Reject | Ping | Pong | Bye

_ENCODER = msgspec.msgpack.Encoder()
_DECODER = msgspec.msgpack.Decoder(AnyMessage)


def encode(message: AnyMessage, buffer: Buffer = b"") -> list[Buffer]:
    """The parts of one message, ready to be sent."""
    header = PREAMBLE + _ENCODER.encode(message)
    return [header, buffer] if len(buffer) else [header]


def decode(parts: Sequence[Buffer]) -> tuple[AnyMessage, memoryview]:
    """The message and its buffer (empty when it has none); RemoteProtocolError when the parts are not legal."""
    if not 1 <= len(parts) <= MOST_PARTS:
        raise RemoteProtocolError(f"got a message of {len(parts)} parts; expected a header and at most one buffer")
    message = _decode_header(memoryview(parts[0]))
    buffer = memoryview(parts[1]) if len(parts) == 2 else memoryview(b"")
    _check_buffer(message, buffer.nbytes)
    return message, buffer


def _decode_header(header: memoryview) -> AnyMessage:
    if header.nbytes > MAX_HEADER_BYTES:
        raise RemoteProtocolError(f"got a header of {header.nbytes} bytes; expected at most {MAX_HEADER_BYTES}")
    lead = bytes(header[: len(PREAMBLE)])
    if lead != PREAMBLE:
        raise RemoteProtocolError(f"got a message that starts with {lead.hex()}; expected {PREAMBLE.hex()}")
    try:
        message: AnyMessage = _DECODER.decode(header[len(PREAMBLE) :])
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise RemoteProtocolError(f"got a malformed header: {error}") from None
    return message


def _check_buffer(message: AnyMessage, got_bytes: int) -> None:
    least, most = _buffer_bounds(message)
    if not least <= got_bytes <= most:
        kind = type(message).__name__
        raise RemoteProtocolError(f"got {kind} with {got_bytes} bytes; expected {least} to {most}")


def _buffer_bounds(message: AnyMessage) -> tuple[int, int]:
    """Fewest and most bytes that may stand in the buffer of this message."""
    match message:
        case InferReply():
            outputs = _tensor_bytes(message.shape)
            return outputs, outputs
        case InferRequest():
            return 1, min(MAX_PART_BYTES, _tensor_bytes(message.shape) + CODEC_OVERHEAD_BYTES)
        case Ping():
            return 0, MAX_PART_BYTES
        case _:
            return 0, 0


def _tensor_bytes(shape: tuple[int, ...]) -> int:
    """Size as float32."""
    size = 4 * math.prod(shape)
    if size > MAX_TENSOR_BYTES:
        raise RemoteProtocolError(f"got shape {shape}, {size} bytes; expected at most {MAX_TENSOR_BYTES}")
    return size
