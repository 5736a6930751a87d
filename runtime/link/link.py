"""A device's way to one MEC: it carries messages, reports what arrived, and can be waited on."""

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

#: A poll takes at most this many messages, and begins none after this time; the rest of a flood waits.
_MESSAGES_PER_POLL = 16
_TIME_PER_POLL_S = 0.001


@dataclass(frozen=True, slots=True)
class Arrival:
    """A message from the MEC, and when it arrived."""

    message: wire.AnyMessage
    buffer: Buffer
    at_s: float


@dataclass(frozen=True, slots=True)
class Malformed:
    """Received bytes that could not be decoded."""

    error: RemoteProtocolError


@dataclass(frozen=True, slots=True)
class NoConnection:
    """The connection in use is gone."""


@dataclass(frozen=True, slots=True)
class Connected:
    """A connection was made: messages can be sent."""


Event = Arrival | Malformed | NoConnection | Connected


class Link(Protocol):
    """The device's way to its MEC; see DirectLink and ``runtime.link.shaped_link.ShapedLink``."""

    def start(self, origin_s: float) -> None:
        """The first frame is captured at this time."""
        ...

    def send(self, message: wire.Sendable, buffer: Buffer) -> float | None:
        """Take a message. Returns the seconds that its bytes will occupy the uplink, or None if not known."""
        ...

    def receive(self) -> list[Event]:
        """Events since the last call; never blocks."""
        ...

    def wait(self, until_s: float) -> None:
        """Return at that time, or earlier when there may be something to receive."""
        ...

    def connect(self) -> None:
        """Open a new connection; nothing more is received over the last one."""
        ...

    def disconnect(self) -> None:
        """Close every connection until the next ``connect``."""
        ...

    def trouble(self) -> str:
        """Why no MEC answers, or "" while that is not known. A call starts finding out; never blocks."""
        ...

    def close(self) -> None: ...


class DirectLink:
    """The network as it is. ``largest_bytes`` is the largest part that a message of the MEC may have."""

    def __init__(self, endpoint: Endpoint, clock: Clock, largest_bytes: int = MAX_PART_BYTES) -> None:
        self._dialler = Dialler(endpoint, clock, largest_bytes)
        self._trouble = Background(lambda: trouble_at(endpoint))
        self._clock = clock

    def start(self, origin_s: float) -> None:
        """Nothing to do: only a replayed trace needs the origin."""

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
                self._dialler.give_up(connection)  # its message may never end
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
