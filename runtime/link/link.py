"""The contract of a link between a device and one MEC, and ``DirectLink``, which uses the network as it is."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from controller.errors import RemoteProtocolError
from runtime.link.background import Background
from runtime.link.dialler import Dialler
from runtime.link.endpoint import Endpoint
from runtime.link.lookup import trouble_at
from runtime.link.tcp_state import TcpState
from runtime.link.transport import Parts
from runtime.protocol import wire
from runtime.protocol.wire import MAX_PART_BYTES, MOST_PARTS, Buffer
from runtime.security.curve import DeviceKeys

Clock = Callable[[], float]

#: Limits of one poll, so that a flood cannot block the device: number of messages, and time.
_MESSAGES_PER_POLL = 16
_TIME_PER_POLL_S = 0.001


@dataclass(frozen=True, slots=True)
class Arrival:
    """A message from the MEC and its arrival time."""

    message: wire.AnyMessage
    buffer: Buffer
    at_s: float


@dataclass(frozen=True, slots=True)
class Malformed:
    """Received bytes that could not be decoded."""

    error: RemoteProtocolError


@dataclass(frozen=True, slots=True)
class NoConnection:
    """The connection in use was lost."""


@dataclass(frozen=True, slots=True)
class Connected:
    """A connection was established: messages can be sent."""


Event = Arrival | Malformed | NoConnection | Connected


@dataclass(frozen=True, slots=True)
class Wake:
    """What ends a wait: one of the descriptors becomes readable, or the time comes."""

    descriptors: tuple[int, ...]
    at_s: float


class Link(Protocol):
    """Carries messages between a device and its MEC; see DirectLink and ``runtime.link.shaped_link.ShapedLink``."""

    def start(self, origin_s: float) -> None:
        """The first frame is captured at this time."""
        ...

    def send(self, message: wire.Sendable, buffer: Buffer) -> float | None:
        """Send a message. Returns the seconds that its bytes will occupy the uplink, or None if unknown."""
        ...

    def receive(self) -> list[Event]:
        """Events since the last call; never blocks."""
        ...

    def wait(self, until_s: float) -> None:
        """Return at that time, or earlier if there may be something to receive."""
        ...

    def wake(self) -> Wake:
        """What ends such a wait, for a device that waits for several links."""
        ...

    def connect(self) -> None:
        """Open a new connection; nothing more is received over the old one."""
        ...

    def disconnect(self) -> None:
        """Close every connection until the next ``connect``."""
        ...

    def tcp_state(self) -> TcpState | None:
        """What the kernel knows of the connection in use; None without one, or where its TCP is not the uplink's."""
        ...

    def trouble(self) -> str:
        """Why no MEC answers, or "" while that is unknown. The first call starts a check; never blocks."""
        ...

    def close(self) -> None: ...


class DirectLink:
    """A link over the network as it is. ``largest_bytes``: largest part of a message that the MEC may send; ``keys``:
    of this device and of that MEC, None on a plain connection; ``on_start`` is told when the first frame is
    captured."""

    def __init__(
        self,
        endpoint: Endpoint,
        clock: Clock,
        largest_bytes: int = MAX_PART_BYTES,
        keys: DeviceKeys | None = None,
        on_start: Callable[[float], None] = lambda _: None,
    ) -> None:
        self._dialler = Dialler(endpoint, clock, largest_bytes, keys)
        self._trouble = Background(lambda: trouble_at(endpoint, keys))
        self._clock = clock
        self._on_start = on_start

    def start(self, origin_s: float) -> None:
        self._on_start(origin_s)

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
                self._dialler.give_up(connection)  # the message may be endless
            events.append(event)
            if len(events) >= _MESSAGES_PER_POLL or self._clock() > end_s:
                break
        if self._dialler.has_lost_connection():
            events.append(NoConnection())
        return events

    def wait(self, until_s: float) -> None:
        self._dialler.wait(until_s - self._clock())

    def wake(self) -> Wake:
        return Wake(self._dialler.descriptors, -math.inf if self._dialler.has_news else math.inf)

    def connect(self) -> None:
        self._dialler.connect()

    def disconnect(self) -> None:
        self._dialler.disconnect()

    def tcp_state(self) -> TcpState | None:
        return self._dialler.tcp_state()

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
