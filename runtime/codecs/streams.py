"""The contract of stream codecs: payloads that refer to earlier payloads of the same stream.

A stream is what one device sends to one MEC of one model, resolution, partition point and codec. The device keeps a
`Sender` per stream, the MEC a `Receiver` per connection and stream. A payload names the request that it refers to, and
a digest of what that request left behind on the device; the receiver compares it with its own. So a lost message, a
restarted MEC, a skipped frame or a forged request costs a rejection and one payload that stands alone, never a wrong
answer.

Two kinds exist: a payload may refer to any request that the MEC has answered (`runtime.codecs.signs`), or to the one
sent just before (`runtime.codecs.video`).
"""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol, TypeAlias

from numpy.typing import NDArray

from controller.costs import CostTable
from controller.errors import RemoteProtocolError
from controller.records import NO_PAYLOAD, Decision, PayloadKey
from runtime.codecs.base import Codec, Payload, get_codec

#: What was fitted for the streams of one model, from its bundle; empty where a codec needs nothing.
Tables: TypeAlias = Mapping[str, NDArray[Any]]
#: References that a receiver keeps, and requests that a sender remembers, the newest first.
KEPT_REFERENCES = 8
#: Ages of a reference, in frames, at which bundles record the bytes of payloads, ascending.
RECORDED_AGES = (1, 2, 3, 5, 8)
#: Larger ages of a reference, in frames, are treated like this one.
MOST_AGE = 16
#: Streams of one connection that each side keeps; the one that was used longest ago is given up first.
MOST_STREAMS = 4
#: What a receiver keeps beside its references: contexts of a compressor, tables of a decoder.
_CONTEXT_BYTES = 64 << 10


class UnknownReferenceError(RemoteProtocolError):
    """A payload refers to a request that the receiver does not hold, or holds with another digest."""


@dataclass(frozen=True, slots=True)
class Encoded:
    """A payload, and the request that it refers to."""

    payload: bytes
    reference_id: int = 0  # 0: the payload stands alone
    digest: int = 0  # of what that request left behind, 32 bits; 0 without a reference


class Sender(Protocol):
    """The device's half of a stream. Memory is bounded, whatever the order of calls.

    ``reference_id`` is read before a frame is decided, to tell what it would take to send it.

    ``answered`` and ``unanswered`` may concern requests from before the last ``forget``, and requests that the sender
    has dropped from its memory: they change nothing then.
    """

    @property
    def reference_id(self) -> int:
        """The request that a payload would refer to if it were encoded now; 0: it would stand alone."""
        ...

    def encode(self, array: NDArray[Any], frame: int) -> Encoded:
        """Encode what frame number ``frame`` sends. The distance to the reference's frame is its age; it is negative
        when an earlier frame is sent once more. A payload that was encoded before and not ``sent`` is discarded; in
        a chained stream, ``forget`` is called first then. The array may change after the call: copy what must be kept
        of it."""
        ...

    def sent(self, request_id: int) -> None:
        """What ``encode`` returned last was handed to the connection as this request. Neither ``encode`` nor
        ``forget`` was called in between."""
        ...

    def answered(self, request_id: int) -> None:
        """The MEC answered a request, so it holds what the request left behind."""
        ...

    def unanswered(self, request_id: int) -> None:
        """A request was lost or rejected: the MEC may hold what it left behind, or not. In a chained stream it is one
        since the newest payload that stood alone, and the next payload stands alone."""
        ...

    def forget(self) -> None:
        """The connection is new or the MEC has restarted: it holds nothing. The next payload stands alone."""
        ...


class Receiver(Protocol):
    """The MEC's half of a stream, of one connection. Keeps at most ``KEPT_REFERENCES`` references."""

    def decode(self, payload: Payload, request_id: int, reference_id: int, digest: int) -> NDArray[Any]:
        """Decode a payload; later ones may refer to ``request_id``. The tail may write to the array that is returned,
        so it must not be the one that is kept.

        UnknownReferenceError when ``reference_id`` is not held with this digest; the receiver stays as it was.
        RemoteProtocolError for a malformed payload; the receiver stays as it was, or holds nothing. Ids are the peer's:
        they may repeat, or come in any order.
        """
        ...


class StreamCodec(Codec):
    """A codec with senders and receivers.

    ``encode`` and ``decode`` handle one array without any stream. Whatever crosses the wire comes from a sender and
    goes to a receiver, payloads that stand alone included; bundles and profiles are measured with these too.
    """

    #: True: a payload may only refer to the one sent just before it. False: to any that was answered.
    chained: ClassVar[bool]

    def fit(self, arrays: NDArray[Any]) -> Tables:
        """Tables for senders and receivers, fitted on arrays (n, *shape) of consecutive training frames.

        The bundle keeps them with the model, so their names must differ from those of other codecs of the model.
        Default: nothing is fitted.
        """
        return {}

    @abstractmethod
    def sender(self, shape: tuple[int, ...], tables: Tables) -> Sender:
        """A sender for arrays of this shape."""

    @abstractmethod
    def receiver(self, shape: tuple[int, ...], tables: Tables) -> Receiver:
        """A receiver for arrays of this shape."""

    def kept_bytes(self, shape: tuple[int, ...]) -> int:
        """Upper bound of the memory that one receiver of arrays of this shape keeps between two payloads.

        A codec that keeps more, or much less, than ``KEPT_REFERENCES`` arrays overrides this: a MEC keeps as many
        receivers as fit into its memory for streams.
        """
        return KEPT_REFERENCES * math.prod(shape) * self.dtype.itemsize + _CONTEXT_BYTES


class AnsweredSender:
    """Owns a sender whose payloads are answered at once, so that each may refer to the one before."""

    def __init__(self, sender: Sender) -> None:
        self._sender = sender
        self.newest_id = 0  # of the requests

    def encode(self, array: NDArray[Any], frame: int) -> Encoded:
        """Encode and send what frame number ``frame`` sends, and hear that it was answered."""
        encoded = self._sender.encode(array, frame)
        self.newest_id += 1
        self._sender.sent(self.newest_id)
        self._sender.answered(self.newest_id)
        return encoded


def stream_codec(name: str) -> StreamCodec | None:
    """The codec of that name, or None if its payloads have no references; UsageError when there is none."""
    codec = None if name == NO_PAYLOAD else get_codec(name)
    return codec if isinstance(codec, StreamCodec) else None


def stream_key(decision: Decision) -> PayloadKey | None:
    """The stream of a decision's payloads; None if they have no references."""
    return None if stream_codec(decision.payload) is None else decision.payload_key


def stream_keys(costs: CostTable) -> tuple[PayloadKey, ...]:
    """The streams of a cost table in the order of their numbers (``CostTable.stream``)."""
    firsts = [int((costs.stream == number).argmax()) for number in range(costs.streams)]
    keys = (stream_key(costs.space.decisions[row]) for row in firsts)
    return tuple(key for key in keys if key is not None)
