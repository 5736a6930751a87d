"""The states of a device's link, and the actions that a ``DeviceSession`` returns for its owner to carry out."""

from __future__ import annotations

import enum
from dataclasses import dataclass

from controller.errors import RemoteProtocolError
from runtime.protocol import wire
from runtime.protocol.wire import Buffer


class LinkState(enum.Enum):
    WAITING = "waiting"
    UP = "up"
    DOWN = "down"
    REFUSED = "refused"
    CLOSED = "closed"


@dataclass(frozen=True, slots=True)
class Transmit:
    """Send a message over the link."""

    message: wire.Sendable
    buffer: Buffer = b""


@dataclass(frozen=True, slots=True)
class LinkChanged:
    """The link has a new state; ``why`` is for the log."""

    state: LinkState
    why: str


@dataclass(frozen=True, slots=True)
class Answered:
    """A valid reply to an open request."""

    reply: wire.InferReply
    outputs: Buffer


@dataclass(frozen=True, slots=True)
class Unanswered:
    """These requests will not be answered."""

    request_ids: tuple[int, ...]
    why: str


@dataclass(frozen=True, slots=True)
class Expired(Unanswered):
    """A request whose budget ran out in the MEC's queue; like a reply, ``queue_s`` shows how long that queue is."""

    queue_s: float


@dataclass(frozen=True, slots=True)
class Busy(Unanswered):
    """A request that the MEC refused at its arrival, because it would have waited ``queue_s``."""

    queue_s: float


@dataclass(frozen=True, slots=True)
class UnknownReference(Unanswered):
    """A request whose payload refers to something that the MEC does not hold."""


@dataclass(frozen=True, slots=True)
class Echoed:
    """A ping with this much padding was answered after this time."""

    padding_bytes: int
    elapsed_s: float


@dataclass(frozen=True, slots=True)
class PeerFault:
    """The MEC broke the protocol: count and log it."""

    error: RemoteProtocolError


@dataclass(frozen=True, slots=True)
class Reconnect:
    """Open a new connection; nothing more is received over the last one."""


@dataclass(frozen=True, slots=True)
class Disconnect:
    """Close every connection until the next ``Reconnect``."""


Action = Transmit | LinkChanged | Answered | Unanswered | Echoed | PeerFault | Reconnect | Disconnect
Actions = list[Action]
