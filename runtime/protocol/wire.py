"""Encodes and decodes the messages between device and MEC: one small header, then at most one raw buffer.

A header is the three bytes ``MP`` and the version, then a msgpack array: the number of the message's type, then its
fields in order, without names. The buffer (a payload, the outputs of a model, the padding of a probe) is sent and
received as it lies in memory. Every number has bounds, and every size is checked before anything is allocated from
it. Anything but a legal message raises ``RemoteProtocolError`` and nothing else. Durations cross the wire, points in
time never do.

A request names a row of the decision space. The handshake has shown that both sides hold the same space, so the row
stands for the model, the partition point, the codec and every shape. A request carries everything that its answer
depends on, with one exception that it names: its payload may refer to that of an earlier request of the same
connection (``runtime.codecs.streams``). ``runtime.protocol.operator_messages`` has the messages that deploy,
``runtime.protocol.old_wire`` those of older versions.
"""

from __future__ import annotations

import enum
import math
from collections.abc import Sequence
from typing import Annotated

import msgspec
from msgspec import Meta, Struct

from controller.errors import RemoteProtocolError
from runtime.protocol.fields import (
    MAX_ID,
    MAX_MS,
    MAX_TEXT,
    Digest,
    Message,
    MessageId,
    Microseconds,
    Milliseconds,
    Name,
    Text,
)
from runtime.protocol.old_wire import OLD_VERSIONS, is_old_hello, is_scout
from runtime.protocol.operator_messages import EveryOperatorMessage, buffer_bounds

VERSION = 4
_MAGIC = b"MP"
PREAMBLE = _MAGIC + bytes([VERSION])
#: One part of a message; a 768x576 colour image is 1.3 MB.
MAX_PART_BYTES = 4 << 20
MAX_HEADER_BYTES = 2048
#: Padding of the largest probe (``controller.timeline.probe_bytes``).
MAX_PADDING_BYTES = 4096
#: Parts of a message: a header and a buffer.
MOST_PARTS = 2
#: Room that a codec may add to the largest raw form (float32) of what it encodes.
CODEC_OVERHEAD_BYTES = 4096

Buffer = bytes | bytearray | memoryview


class RejectReason(enum.Enum):
    """Why the MEC did not accept a message or request."""

    DIGEST = 1  # the two sides hold different bundles or spaces
    NO_SESSION = 2  # say hello first: the MEC restarted or forgot this device
    BUSY = 3  # no room, or no chance to be in time: the text says which
    EXPIRED = 4  # the budget ran out in the queue
    ILLEGAL = 5  # the row does not exist, or sends nothing
    PAYLOAD = 6  # the codec could not decode the buffer
    FAILED = 7  # an error of the MEC
    CLOSING = 8  # the MEC is shutting down
    REFERENCE = 9  # the MEC does not hold what the payload refers to: send the frame once more, standing alone
    DENIED = 10  # an operator may not do this, or this MEC does not do it

    def __str__(self) -> str:
        return self.name.lower()


class Held(Message, frozen=True):
    """What must be equal on both sides, so that a row has the same meaning on both."""

    workload: Name
    bundle_digest: Digest
    space_digest: Digest  # of the rows and their order, which the bundle's digest does not cover


class Hello(Message, frozen=True, tag=1):
    """Device to MEC: the device's name and what it holds."""

    device: Name
    held: Held


class Welcome(Message, frozen=True, tag=2):
    """MEC to device: accepted, because both hold the same. ``instance`` is new each time a MEC starts."""

    instance: Name
    held: Held
    mec_slowdown: Annotated[float, Meta(gt=0, le=1e6)]  # duration of a tail at this MEC / in the profile


class InferRequest(Message, frozen=True, tag=3):
    """Device to MEC: run the tail of this row of the decision space on the payload in the buffer."""

    request_id: MessageId
    row: Annotated[int, Meta(ge=0, lt=1 << 24)]
    remaining_budget_ms: Milliseconds  # until the device no longer waits for the answer
    #: How many ids before this request's the one lies that its payload refers to; 0 if the payload stands alone. A
    #: small number is one byte, an id would be up to five.
    reference_back: Annotated[int, Meta(ge=0, lt=MAX_ID)] = 0
    reference_digest: Annotated[int, Meta(ge=0, lt=1 << 32)] = 0  # of what that request left behind

    @property
    def reference_id(self) -> int:
        """Id of the request that the payload refers to; 0 if it stands alone."""
        return id_before(self.request_id, self.reference_back) if self.reference_back else 0


class InferReply(Message, frozen=True, tag=4):
    """MEC to device: the outputs (float32, in the buffer) and where the time went."""

    request_id: MessageId
    queue_us: Microseconds  # from arrival to the start of the tail
    mec_us: Microseconds  # decoding and tail, slowdown included; 0 if the outputs were known from an earlier request

    @property
    def queue_ms(self) -> float:
        return self.queue_us / 1e3

    @property
    def mec_ms(self) -> float:
        return self.mec_us / 1e3


class Reject(Message, frozen=True, tag=5):
    """MEC to device: a message or request was not accepted. ``request_id`` is 0 if it concerns no request."""

    request_id: Annotated[int, Meta(ge=0, le=MAX_ID)]
    reason: RejectReason
    text: Text
    #: Of an expired request: how long it waited since its arrival. Of one that a busy MEC did not queue: how long it
    #: would have waited; 0 if that is not why.
    queue_us: Microseconds = 0

    @property
    def queue_ms(self) -> float:
        return self.queue_us / 1e3


class Ping(Message, frozen=True, tag=6):
    """Device to MEC: asks for a Pong. With padding in the buffer it measures the uplink."""

    ping_id: MessageId


class Pong(Message, frozen=True, tag=7):
    """MEC to device: the answer to a Ping, without its padding."""

    ping_id: MessageId


class Bye(Message, frozen=True, tag=8):
    """Either way: the sender leaves and will not answer any more."""


class Foreign(Struct, frozen=True):
    """An encoded header of another version, to be sent unchanged. ``decode`` never returns it."""

    header: bytes


AnyMessage = Hello | Welcome | InferRequest | InferReply | Reject | Ping | Pong | Bye | EveryOperatorMessage
Sendable = AnyMessage | Foreign


class OtherVersionError(RemoteProtocolError):
    """A message of another protocol version. ``is_hello``: it is the hello of an old device. ``is_scout``: a device of
    our version sent it to find an old MEC."""

    def __init__(self, version: int, is_hello: bool, is_scout: bool = False) -> None:
        super().__init__(f"got a message of protocol {version}; expected protocol {VERSION}")
        self.version, self.is_hello, self.is_scout = version, is_hello, is_scout


_ENCODER = msgspec.msgpack.Encoder()
_DECODER = msgspec.msgpack.Decoder(AnyMessage)


def encode(message: Sendable, buffer: Buffer = b"") -> list[Buffer]:
    """The parts of one message, ready to send."""
    if isinstance(message, Foreign):
        return [message.header]
    header = PREAMBLE + _ENCODER.encode(message)
    return [header, buffer] if len(buffer) else [header]


def decode(parts: Sequence[Buffer]) -> tuple[AnyMessage, memoryview]:
    """The message and its buffer, which may be empty. RemoteProtocolError if the parts are not a legal message."""
    if not 1 <= len(parts) <= MOST_PARTS:
        raise RemoteProtocolError(f"got a message of {len(parts)} parts; expected a header and at most one buffer")
    message = _decode_header(memoryview(parts[0]))
    buffer = memoryview(parts[1]) if len(parts) == 2 else memoryview(b"")
    _check_buffer(message, buffer.nbytes)
    return message, buffer


def _decode_header(header: memoryview) -> AnyMessage:
    if header.nbytes > MAX_HEADER_BYTES:
        raise RemoteProtocolError(f"got a header of {header.nbytes} bytes; expected at most {MAX_HEADER_BYTES}")
    lead, rest = bytes(header[: len(PREAMBLE)]), header[len(PREAMBLE) :]
    if lead != PREAMBLE:
        if lead[:-1] == _MAGIC and len(lead) == len(PREAMBLE):
            version = lead[-1]
            old = version in OLD_VERSIONS
            raise OtherVersionError(version, old and is_old_hello(version, rest), old and is_scout(version, rest))
        raise RemoteProtocolError(f"got a message that starts with {lead.hex()}; expected {PREAMBLE.hex()}")
    try:
        message: AnyMessage = _DECODER.decode(rest)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise RemoteProtocolError(f"got a malformed header: {error}") from None
    return message


def _check_buffer(message: AnyMessage, got_bytes: int) -> None:
    least, most = _buffer_bounds(message)
    if not least <= got_bytes <= most:
        kind = type(message).__name__
        raise RemoteProtocolError(f"got {kind} with {got_bytes} bytes; expected {least} to {most}")
    if isinstance(message, InferReply) and got_bytes % 4:
        raise RemoteProtocolError(f"got InferReply with {got_bytes} bytes; expected float32, 4 bytes each")


def _buffer_bounds(message: AnyMessage) -> tuple[int, int]:
    """Smallest and largest legal buffer of this message, in bytes; a request's row may allow less."""
    match message:
        case InferReply():
            return 4, MAX_PART_BYTES
        case InferRequest():
            return 1, MAX_PART_BYTES
        case Ping():
            return 0, MAX_PADDING_BYTES
        case Hello() | Welcome() | Reject() | Pong() | Bye():
            return 0, 0
        case _:
            return buffer_bounds(message)


def most_payload_bytes(shape: tuple[int, ...]) -> int:
    """Upper bound of the bytes into which any codec encodes an array of this shape."""
    return min(MAX_PART_BYTES, 4 * math.prod(shape) + CODEC_OVERHEAD_BYTES)


def plain(text: str) -> str:
    """Text made legal for a message: one line of at most ``MAX_TEXT`` printable characters."""
    return "".join(letter for letter in " ".join(text.split()) if letter.isprintable())[:MAX_TEXT]


def infer_request(request_id: int, space_row: int, budget_s: float) -> InferRequest:
    """The request for a decision, given its row in the space that both sides hold. Its payload stands alone."""
    return InferRequest(request_id, space_row, whole_ms(budget_s))


def with_reference(request: InferRequest, reference_id: int, digest: int) -> InferRequest:
    """The same request with a payload that refers to an earlier request; 0 is none."""
    if not reference_id:
        return request
    back = (request.request_id - reference_id) % MAX_ID
    return InferRequest(request.request_id, request.row, request.remaining_budget_ms, back, digest)


def whole_ms(duration_s: float) -> int:
    """A duration as whole milliseconds, clipped to what the wire allows."""
    return round(min(max(duration_s * 1e3, 0.0), MAX_MS))


def whole_us(duration_s: float) -> int:
    """A duration as whole microseconds, clipped to what the wire allows."""
    return round(min(max(duration_s * 1e6, 0.0), MAX_MS * 1e3))


def next_id(last_id: int) -> int:
    """The id after this one."""
    return last_id % MAX_ID + 1


def id_before(message_id: int, back: int) -> int:
    """The id that lies ``back`` ids before this one."""
    return (message_id - 1 - back) % MAX_ID + 1


def was_issued(message_id: int, last_id: int) -> bool:
    """Whether an id equals the last one or precedes it, within half of the range of ids."""
    return (last_id - message_id) % MAX_ID < MAX_ID // 2


def difference(mec: Held, device: Held) -> str:
    """Why a MEC and a device that hold these cannot work together, and the way out; "" if they can work."""
    if mec.workload != device.workload:
        return f"the MEC serves workload {mec.workload}, this device {device.workload}; start both with one --workload"
    if mec.bundle_digest != device.bundle_digest:
        held = f"the MEC's is {mec.bundle_digest[:12]}, this device's {device.bundle_digest[:12]}"
        return f"two bundles of workload {mec.workload}: {held}; install the same bundle on both"
    if mec.space_digest != device.space_digest:
        return "the MEC and this device number the decisions differently; install the same version of mecpilot on both"
    return ""
