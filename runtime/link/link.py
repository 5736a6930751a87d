"""What does the device see of its uplink? Something that carries messages, tells what arrived, and can be waited on."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from controller.errors import RemoteProtocolError
from runtime.link.background import Background
from runtime.link.dialler import Dialler
from runtime.link.endpoint import Endpoint
from runtime.link.lookup import trouble_at
from runtime.link.transport import Parts
from runtime.protocol import wire
from runtime.protocol.wire import MAX_PART_BYTES, MOST_PARTS, Buffer

Clock = Callable[[], float]

#: What a poll takes: so many messages, begun within this time. A flood waits for the next poll, and then for its end.
_MESSAGES_PER_POLL = 16
_TIME_PER_POLL_S = 0.001


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
    """The connection that was used is gone."""


@dataclass(frozen=True, slots=True)
class Connected:
    """A connection was made: something can be said to whoever is there."""


Event = Arrival | Malformed | NoConnection | Connected


class Link(Protocol):
    """The device's way to its MEC; see DirectLink and ``runtime.link.shaped_link.ShapedLink``."""

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

    def connect(self) -> None:
        """Open a new connection; nothing of one that was used before is heard again."""
        ...

    def disconnect(self) -> None:
        """Hear and say nothing until the next ``connect``."""
        ...

    def trouble(self) -> str:
        """Why nothing is heard, as far as known. The first call begins to find out; never blocks."""
        ...

    def close(self) -> None: ...


class DirectLink:
    """Straight to the MEC. ``largest_bytes`` is the largest part that a message of the MEC may have."""

    def __init__(self, endpoint: Endpoint, clock: Clock, largest_bytes: int = MAX_PART_BYTES) -> None:
        self._dialler = Dialler(endpoint, clock, largest_bytes)
        self._trouble = Background(lambda: trouble_at(endpoint))
        self._clock = clock

    def start(self, origin_s: float) -> None:
        """An unshaped uplink has no time of its own."""

    def send(self, message: wire.Sendable, buffer: Buffer) -> None:
        self._dialler.send(wire.encode(message, buffer))

    def receive(self) -> list[Event]:
        events: list[Event] = [Connected()] if self._dialler.has_new_connection() else []
        end_s = self._clock() + _TIME_PER_POLL_S
        for connection, parts in self._dialler.receive():
            event = self._decoded(parts)
            if isinstance(event, Arrival):
                self._dialler.keep(connection)
            elif len(parts) > MOST_PARTS:
                self._dialler.give_up(connection)  # its message may go on for ever
            events.append(event)
            if len(events) >= _MESSAGES_PER_POLL or self._clock() > end_s:
                break
        if self._dialler.has_lost_connection():
            events.append(NoConnection())
        return events

    def wait(self, until_s: float) -> None:
        self._dialler.wait(until_s - self._clock())

    def connect(self) -> None:
        self._dialler.connect()

    def disconnect(self) -> None:
        self._dialler.disconnect()

    def trouble(self) -> str:
        if (found := self._trouble.take()) is not None:
            return found
        self._trouble.ask()
        return ""

    def close(self) -> None:
        self._dialler.close()

    def _decoded(self, parts: Parts) -> Event:
        try:
            message, buffer = wire.decode(parts)
        except RemoteProtocolError as error:
            return Malformed(error)
        return Arrival(message, buffer, self._clock())
