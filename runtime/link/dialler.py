"""Opens new connections to a MEC until one answers.

Theory of operation. An old connection is never reused: a router may have forgotten it or its host may be dead, and TCP
would keep it for minutes. ``connect`` opens a connection to the last known addresses at once and looks the name up
again; new addresses are tried when they are known. A name lookup may hang, so it runs on a thread of its own, and
sockets only ever get numeric addresses.

Over a slow link a handshake takes longer than the interval between new connections. So several connections are tried
side by side, each for ``PATIENCE_S``. The first one on which the MEC answers is kept; the others are closed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import zmq

from runtime.link.background import Background
from runtime.link.dealer import Dealer
from runtime.link.endpoint import Endpoint
from runtime.link.lookup import Found, addresses_of
from runtime.link.memory_watch import MemoryWatch
from runtime.link.tcp_state import TcpState
from runtime.link.transport import Parts, wait_for
from runtime.protocol.wire import Buffer
from runtime.security.curve import DeviceKeys

#: A connection on which nothing was answered for this long is closed at the next ``connect``.
PATIENCE_S = 4.0
_MOST_TRIES = 8


@dataclass(slots=True)
class Connection:
    """A connection that is tried, or the one that is in use."""

    dealer: Dealer
    address: Endpoint
    began_s: float
    connected: bool = False


class Dialler:
    """Owns all connections of a device to its MEC, and the MEC's known addresses. With ``keys`` they are encrypted."""

    def __init__(
        self, endpoint: Endpoint, clock: Callable[[], float], largest_bytes: int, keys: DeviceKeys | None = None
    ) -> None:
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self._clock, self._largest_bytes, self._keys = clock, largest_bytes, keys
        self._lookup = Background(lambda: addresses_of(endpoint))
        self._numeric = endpoint.is_numeric
        self._known = Found((endpoint,) if self._numeric else ())
        self._connections: list[Connection] = []
        self._kept: Connection | None = None
        self._wanted = False  # no connection is in use, and one is wanted
        self._memory = MemoryWatch(clock)
        self.connect()

    def connect(self) -> None:
        """Try a new connection: instead of the one in use, or in parallel to those being tried."""
        if self._kept is not None:
            self.disconnect()
        self._wanted = True
        self._memory.reset()
        self._retire(self._clock() - PATIENCE_S)
        for address in self._known.addresses:
            self._open(address)
        if not self._numeric:
            self._lookup.ask()

    def disconnect(self) -> None:
        """Close every connection until the next ``connect``."""
        self._wanted, self._kept = False, None
        for connection in self._connections:
            connection.dealer.close(linger_ms=0)
        self._connections.clear()

    def keep(self, connection: Connection) -> None:
        """Use this connection, because the MEC answered on it, and close the others."""
        if self._kept is None:
            for other in self._connections:
                if other is not connection:
                    other.dealer.close(linger_ms=0)
            self._connections, self._kept, self._wanted = [connection], connection, False

    def give_up(self, connection: Connection) -> None:
        """Close this connection."""
        connection.dealer.close(linger_ms=0)
        self._connections = [other for other in self._connections if other is not connection]

    def send(self, parts: Sequence[Buffer]) -> None:
        """Send over the connection in use, or over all being tried. Without any, the message is lost."""
        for connection in self._connections:
            connection.dealer.send(parts)

    def receive(self) -> Iterator[tuple[Connection, Parts]]:
        """Messages that have arrived, each with its connection."""
        self._look_up()
        for connection in tuple(self._connections):
            if connection in self._connections:  # not closed by ``keep`` or ``disconnect`` meanwhile
                for parts in connection.dealer.receive():
                    self._memory.reset()
                    yield connection, parts
        if self._memory.is_filling():
            for connection in tuple(self._connections):
                self.give_up(connection)

    def tcp_state(self) -> TcpState | None:
        """What the kernel knows of the connection in use; None without one."""
        return None if self._kept is None else self._kept.dealer.tcp_state()

    def has_new_connection(self) -> bool:
        """Whether a connection was made since the last call."""
        new = [c for c in self._connections if not c.connected and c.dealer.connected]
        for connection in new:
            connection.connected = True
        return bool(new)

    def has_lost_connection(self) -> bool:
        """Whether the last ``receive`` found the connection in use broken; true once."""
        if self._kept is None or not self._kept.connected or self._kept.dealer.was_connected:
            return False
        self._kept.connected = False
        return True

    def wait(self, timeout_s: float) -> None:
        """Return after the timeout, or earlier if something may have arrived or a connection may have changed."""
        if not self.has_news:
            wait_for(self.descriptors, timeout_s)

    @property
    def has_news(self) -> bool:
        """Something may have arrived, or a connection may have changed."""
        return any(c.dealer.has_news or c.connected != c.dealer.connected for c in self._connections)

    @property
    def descriptors(self) -> tuple[int, ...]:
        """They become readable when there is news."""
        return tuple(connection.dealer.descriptor for connection in self._connections)

    def close(self) -> None:
        """Close all connections after the last messages were sent; may be called twice."""
        for connection in self._connections:
            connection.dealer.close()
        self._connections.clear()
        self._kept, self._wanted = None, False
        self._context.term()

    def _look_up(self) -> None:
        """Take the result of a lookup, and try addresses that were not yet tried since the last ``connect``."""
        found = self._lookup.take()
        if found is None or not found.addresses:
            return  # the addresses known so far may still be right
        self._known = found
        tried = {connection.address for connection in self._connections}
        for address in found.addresses:
            if self._wanted and address not in tried:
                self._open(address)

    def _open(self, address: Endpoint) -> None:
        dealer = Dealer(
            str(address),
            self._context,
            once=True,
            largest_bytes=self._largest_bytes,
            keys=self._keys,
            watch_tcp=True,
        )
        self._connections.append(Connection(dealer, address, self._clock()))
        while len(self._connections) > _MOST_TRIES:
            self._connections.pop(0).dealer.close(linger_ms=0)

    def _retire(self, began_before_s: float) -> None:
        old = [connection for connection in self._connections if connection.began_s < began_before_s]
        for connection in old:
            connection.dealer.close(linger_ms=0)
            self._connections.remove(connection)
