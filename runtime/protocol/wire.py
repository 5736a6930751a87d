"""Which bytes cross the uplink? Messages as multipart: one small header, then at most one raw buffer.

A header is the three bytes ``MP`` and the version, then a msgpack array: the number of the message's type, then its
fields in order, without names. The buffer (a payload, the outputs of a model, the padding of a probe) is sent and
received as it lies in memory. Every number has bounds and every size is checked here, before anything is allocated from
it; whatever is not a legal message raises ``RemoteProtocolError`` and nothing else. Durations cross the wire, points in
time never do.

A request names a row of the decision space that both sides proved to hold when they met, and with it the model, the
cut, the codec and every shape. It carries all that its answer depends on, so the MEC keeps nothing per device but that
it said hello. Peers of versions 1 and 2 are told so in their own format: see ``runtime.protocol.old_wire``.
"""

from __future__ import annotations

import enum
import math
from collections.abc import Sequence
from typing import Annotated

import msgspec
from msgspec import Meta, Struct

from controller.errors import RemoteProtocolError
from runtime.protocol.old_wire import OLD_VERSIONS, is_old_hello, is_scout

VERSION = 3
_MAGIC = b"MP"
PREAMBLE = _MAGIC + bytes([VERSION])
#: One part of a message; a 768x576 colour image is 1.3 MB.
MAX_PART_BYTES = 4 << 20
MAX_HEADER_BYTES = 2048
#: Padding of the largest probe (``controller.timeline.probe_bytes``).
MAX_PADDING_BYTES = 4096
#: A header and a buffer.
MOST_PARTS = 2
#: Room that a codec may add to the largest raw form (float32) of what it encodes.
CODEC_OVERHEAD_BYTES = 4096
#: Ids of requests and pings: 1 to this, then 1 again; 0 means none. At 24 a second that is once in 5.6 years.
MAX_ID = 2**32 - 1
_MAX_MS = 3_600_000
MAX_TEXT = 512

Buffer = bytes | bytearray | memoryview

MessageId = Annotated[int, Meta(ge=1, le=MAX_ID)]
#: Words of a peer may be logged, so they have no control characters.
_PLAIN = r"\A[^\x00-\x1f\x7f]*\Z"
Name = Annotated[str, Meta(min_length=1, max_length=64, pattern=_PLAIN)]
Digest = Annotated[str, Meta(max_length=128, pattern=_PLAIN)]
Text = Annotated[str, Meta(max_length=MAX_TEXT, pattern=_PLAIN)]
Milliseconds = Annotated[int, Meta(ge=0, le=_MAX_MS)]
#: The tail of a small network takes a millisecond, and estimates of the uplink are what remains beside it.
Microseconds = Annotated[int, Meta(ge=0, le=_MAX_MS * 1000)]


class RejectReason(enum.Enum):
    """Why the MEC did not do what was asked."""

    DIGEST = 1  # the two sides do not hold the same
    NO_SESSION = 2  # say hello first: the MEC restarted or forgot this device
    BUSY = 3  # the queue is full
    EXPIRED = 4  # the budget was used up before the request's turn came
    ILLEGAL = 5  # no such row, or one that sends nothing
    PAYLOAD = 6  # the codec could not read the buffer
    FAILED = 7  # the MEC's own fault
    CLOSING = 8

    def __str__(self) -> str:
        return self.name.lower()


class Message(Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """Base of everything that crosses."""


class Held(Message, frozen=True):
    """What both sides must hold alike, so that a row means the same on both."""

    workload: Name
    bundle_digest: Digest
    space_digest: Digest  # of the rows in their order, which the bundle's does not cover


class Hello(Message, frozen=True, tag=1):
    """Device to MEC: who I am and what I hold."""

    device: Name
    held: Held


class Welcome(Message, frozen=True, tag=2):
    """MEC to device: we hold the same. ``instance`` is new each time a MEC starts."""

    instance: Name
    held: Held
    mec_slowdown: Annotated[float, Meta(gt=0, le=1e6)]  # time of a tail here / in the shared profile


class InferRequest(Message, frozen=True, tag=3):
    """Device to MEC: run the tail of this row of the decision space on the payload in the buffer."""

    request_id: MessageId
    row: Annotated[int, Meta(ge=0, lt=1 << 24)]
    remaining_budget_ms: Milliseconds  # until the device gives the answer up


class InferReply(Message, frozen=True, tag=4):
    """MEC to device: the outputs, float32 in the buffer, and where the time went."""

    request_id: MessageId
    queue_us: Microseconds  # from arrival to the start of the tail
    mec_us: Microseconds  # decoding and tail, slowdown included

    @property
    def queue_ms(self) -> float:
        return self.queue_us / 1e3

    @property
    def mec_ms(self) -> float:
        return self.mec_us / 1e3


class Reject(Message, frozen=True, tag=5):
    """MEC to device: no. ``request_id`` is 0 when no request is meant."""

    request_id: Annotated[int, Meta(ge=0, le=MAX_ID)]
    reason: RejectReason
    text: Text
    queue_us: Microseconds = 0  # of an expired request, from its arrival on: what a reply would have told

    @property
    def queue_ms(self) -> float:
        return self.queue_us / 1e3


class Ping(Message, frozen=True, tag=6):
    """Device to MEC: are you there? With padding in the buffer it probes the uplink."""

    ping_id: MessageId


class Pong(Message, frozen=True, tag=7):
    """MEC to device: yes."""

    ping_id: MessageId


class Bye(Message, frozen=True, tag=8):
    """Either way: I am leaving, expect nothing more."""


class Foreign(Struct, frozen=True):
    """A header in the format of another version, to be sent as it is; nothing decodes to it."""

    header: bytes


AnyMessage = Hello | Welcome | InferRequest | InferReply | Reject | Ping | Pong | Bye
Sendable = AnyMessage | Foreign


class OtherVersionError(RemoteProtocolError):
    """The peer speaks another version of this protocol; ``is_hello`` when it has just said so. ``is_scout`` when it
    speaks ours, and only looks for an old MEC."""

    def __init__(self, version: int, is_hello: bool, is_scout: bool = False) -> None:
        super().__init__(f"got a message of protocol {version}; expected protocol {VERSION}")
        self.version, self.is_hello, self.is_scout = version, is_hello, is_scout


_ENCODER = msgspec.msgpack.Encoder()
_DECODER = msgspec.msgpack.Decoder(AnyMessage)


def encode(message: Sendable, buffer: Buffer = b"") -> list[Buffer]:
    """The parts of one message, ready to be sent."""
    if isinstance(message, Foreign):
        return [message.header]
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
    lead, rest = bytes(header[: len(PREAMBLE)]), header[len(PREAMBLE) :]
    if lead != PREAMBLE:
        if lead[:-1] == _MAGIC and len(lead) == len(PREAMBLE):
            old = lead[-1] in OLD_VERSIONS
            raise OtherVersionError(lead[-1], old and is_old_hello(rest), old and is_scout(rest))
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
    """Fewest and most bytes that may stand in the buffer of this message; a row may allow less."""
    match message:
        case InferReply():
            return 4, MAX_PART_BYTES
        case InferRequest():
            return 1, MAX_PART_BYTES
        case Ping():
            return 0, MAX_PADDING_BYTES
        case _:
            return 0, 0


def most_payload_bytes(shape: tuple[int, ...]) -> int:
    """Most bytes that any codec makes of an array of that shape."""
    return min(MAX_PART_BYTES, 4 * math.prod(shape) + CODEC_OVERHEAD_BYTES)


def plain(text: str) -> str:
    """Words as they may cross the wire: one line, not too long."""
    return "".join(letter for letter in " ".join(text.split()) if letter.isprintable())[:MAX_TEXT]


def infer_request(request_id: int, space_row: int, budget_s: float) -> InferRequest:
    """The request for a decision, given its row in the space that both sides hold."""
    return InferRequest(request_id, space_row, whole_ms(budget_s))


def whole_ms(duration_s: float) -> int:
    """A duration as it crosses the wire; what is out of bounds becomes the bound."""
    return round(min(max(duration_s * 1e3, 0.0), _MAX_MS))


def whole_us(duration_s: float) -> int:
    """A duration as it crosses the wire; what is out of bounds becomes the bound."""
    return round(min(max(duration_s * 1e6, 0.0), _MAX_MS * 1e3))


def next_id(last_id: int) -> int:
    """The id after this one."""
    return last_id % MAX_ID + 1


def was_issued(message_id: int, last_id: int) -> bool:
    """Whether an id is the last one or one of those before it, as far as half of all ids tell."""
    return (last_id - message_id) % MAX_ID < MAX_ID // 2


def difference(mec: Held, device: Held) -> str:
    """Why a MEC and a device that hold these cannot work together, and the way out; "" when they can."""
    if mec.workload != device.workload:
        return f"the MEC serves workload {mec.workload}, this device {device.workload}; start both with one --workload"
    if mec.bundle_digest != device.bundle_digest:
        held = f"the MEC's is {mec.bundle_digest[:12]}, this device's {device.bundle_digest[:12]}"
        return f"two bundles of workload {mec.workload}: {held}; install the same bundle on both"
    if mec.space_digest != device.space_digest:
        return "the MEC and this device number the decisions otherwise; install one version of mecpilot on both"
    return ""
