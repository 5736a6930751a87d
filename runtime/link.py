"""What does the device see of its uplink? Something that carries messages, tells what arrived, and can be waited on."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from controller.errors import RemoteProtocolError
from runtime import wire
from runtime.transport import Dealer
from runtime.wire import Buffer

Clock = Callable[[], float]


@dataclass(frozen=True, slots=True)
class Arrival:
    """A message from the MEC, and when it came."""

    message: wire.AnyMessage
    buffer: Buffer
    at_s: float


@dataclass(frozen=True, slots=True)
class Malformed:
    """Bytes that are no message."""

    error: RemoteProtocolError


@dataclass(frozen=True, slots=True)
class NoConnection:
    """Something could not be sent."""


Event = Arrival | Malformed | NoConnection


class Link(Protocol):
    """The device's way to its MEC; see DirectLink and ``runtime.shaping.ShapedLink``."""

    def start(self, origin_s: float) -> None:
        """The first frame is captured at this time."""
        ...

    def send(self, message: wire.Sendable, buffer: Buffer) -> float | None:
        """Take a message. How long its bytes will occupy the uplink, where the link knows it."""
        ...

    def receive(self) -> list[Event]:
        """What happened since the last call; never blocks."""
        ...

    def wait(self, until_s: float) -> None:
        """Return at that time, or earlier when there may be something to receive."""
        ...

    def close(self) -> None: ...


class DirectLink:
    """Straight to the socket."""

    def __init__(self, dealer: Dealer, clock: Clock) -> None:
        self._dealer = dealer
        self._clock = clock
        self._failed = False

    def start(self, origin_s: float) -> None:
        """An unshaped uplink has no time of its own."""

    def send(self, message: wire.Sendable, buffer: Buffer) -> None:
        if not self._dealer.send(wire.encode(message, buffer)):
            self._failed = True

    def receive(self) -> list[Event]:
        events: list[Event] = []
        for parts in self._dealer.receive():
            try:
                message, buffer = wire.decode(parts)
            except RemoteProtocolError as error:
                events.append(Malformed(error))
            else:
                events.append(Arrival(message, buffer, self._clock()))
        if self._failed:
            self._failed = False
            events.append(NoConnection())
        return events

    def wait(self, until_s: float) -> None:
        self._dealer.wait(until_s - self._clock())

    def close(self) -> None:
        self._dealer.close()
