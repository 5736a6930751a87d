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

from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol, TypeAlias

from numpy.typing import NDArray

from controller.errors import RemoteProtocolError
from runtime.codecs.base import Codec, Payload

#: What was fitted for the streams of one model, from its bundle; empty where a codec needs nothing.
Tables: TypeAlias = Mapping[str, NDArray[Any]]
#: References that a receiver keeps, and requests that a sender remembers, the newest first.
KEPT_REFERENCES = 8
#: Ages of a reference, in frames, at which bundles record the bytes of payloads, ascending.
RECORDED_AGES = (1, 2, 3, 5, 8)
#: Larger ages of a reference, in frames, are treated like this one.
MOST_AGE = 16


class UnknownReferenceError(RemoteProtocolError):
    """A payload refers to a request that the receiver does not hold, or holds with another digest."""


@dataclass(frozen=True, slots=True)
class Encoded:
    """A payload, and the request that it refers to."""

    payload: bytes
    reference_id: int = 0  # 0: the payload stands alone
    digest: int = 0  # of what that request left behind, 32 bits; 0 without a reference


class Sender(Protocol):
    """The device's half of a stream. Memory is bounded, whatever the order of calls."""

    def encode(self, array: NDArray[Any], frame: int) -> Encoded:
        """Encode what frame number ``frame`` sends. The distance to the reference's frame is its age."""
        ...

    def sent(self, request_id: int) -> None:
        """What ``encode`` returned last was handed to the connection as this request."""
        ...

    def answered(self, request_id: int) -> None:
        """The MEC answered a request, so it holds what the request left behind."""
        ...

    def unanswered(self, request_id: int) -> None:
        """A request was lost, rejected or given up: the MEC may hold what it left behind, or not."""
        ...

    def forget(self) -> None:
        """The connection is new or the MEC has restarted: it holds nothing. The next payload stands alone."""
        ...


class Receiver(Protocol):
    """The MEC's half of a stream, of one connection. Keeps at most ``KEPT_REFERENCES`` references."""

    def decode(self, payload: Payload, request_id: int, reference_id: int, digest: int) -> NDArray[Any]:
        """Decode a payload; later ones may refer to ``request_id``.

        UnknownReferenceError when ``reference_id`` is not held with this digest. RemoteProtocolError for a malformed
        payload, which leaves the receiver as it was.
        """
        ...


class StreamCodec(Codec):
    """A codec with senders and receivers. ``encode`` and ``decode`` handle payloads that stand alone."""

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
