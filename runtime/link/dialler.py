"""How does a device get a connection to its MEC, whatever became of the last one? It opens new ones until one answers.

Theory of operation. Nothing of an old connection is used again: a router may have forgotten it, its host may be dead,
and TCP would go on to believe in it for minutes. ``connect`` opens a connection to the last known address at once and
has the name looked up anew; other addresses are tried when they are known. The name server may hang, so it is asked on
a thread of its own, and sockets are only ever given addresses in numbers.

Over a slow link a handshake takes longer than the time after which the next connection is opened, so several are tried
side by side for ``PATIENCE_S``. The first that the MEC answers on is kept and the others are closed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import zmq

from runtime.link.background import Background
from runtime.link.endpoint import Endpoint
from runtime.link.lookup import Found, addresses_of
from runtime.link.memory_watch import MemoryWatch
from runtime.link.transport import Dealer, Parts, wait_for
from runtime.protocol.wire import Buffer

#: How long a connection may take to be answered on.
PATIENCE_S = 4.0
_MOST_TRIES = 8


@dataclass(slots=True)
class Connection:
    """One that is tried, or the one that is used."""

    dealer: Dealer
    address: Endpoint
    began_s: float
    connected: bool = False


class Dialler:
    """Owns every connection of a device, and what is known of the MEC's addresses."""

    def __init__(self, endpoint: Endpoint, clock: Callable[[], float], largest_bytes: int) -> None:
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self._clock, self._largest_bytes = clock, largest_bytes
        self._lookup = Background(lambda: addresses_of(endpoint))
        self._numeric = endpoint.is_numeric
        self._known = Found((endpoint,) if self._numeric else ())
        self._connections: list[Connection] = []
        self._kept: Connection | None = None
        self._wanted = False  # a connection is being sought
        self._memory = MemoryWatch(clock)
        self.connect()

    def connect(self) -> None:
        """Try a new connection: instead of the one that was used, or beside those that are still young."""
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
        """Hear and say nothing until the next ``connect``."""
        self._wanted, self._kept = False, None
        for connection in self._connections:
            connection.dealer.close(linger_ms=0)
        self._connections.clear()

    def keep(self, connection: Connection) -> None:
        """The MEC has answered on this one."""
        if self._kept is None:
            for other in self._connections:
                if other is not connection:
                    other.dealer.close(linger_ms=0)
            self._connections, self._kept, self._wanted = [connection], connection, False

    def give_up(self, connection: Connection) -> None:
        """Whoever is there must not be heard any more."""
        connection.dealer.close(linger_ms=0)
        self._connections = [other for other in self._connections if other is not connection]

    def send(self, parts: Sequence[Buffer]) -> None:
        """Over the connection that is used, or over all that are tried; lost where there is none."""
        for connection in self._connections:
            connection.dealer.send(parts)

    def receive(self) -> Iterator[tuple[Connection, Parts]]:
        """What has arrived, and over which connection."""
        self._look_up()
        for connection in tuple(self._connections):
            if connection in self._connections:  # not closed by ``keep`` or ``disconnect`` meanwhile
                for parts in connection.dealer.receive():
                    self._memory.reset()
                    yield connection, parts
        if self._memory.is_filling():
            for connection in tuple(self._connections):
                self.give_up(connection)

    def has_new_connection(self) -> bool:
        """Whether something can be sent that could not be before; said once."""
        new = [c for c in self._connections if not c.connected and c.dealer.connected]
        for connection in new:
            connection.connected = True
        return bool(new)

    def has_lost_connection(self) -> bool:
        """Whether the connection that was used was gone at the last ``receive``; said once."""
        if self._kept is None or not self._kept.connected or self._kept.dealer.was_connected:
            return False
        self._kept.connected = False
        return True

    def wait(self, timeout_s: float) -> None:
        """Return when there may be something to receive, to say, or to lose."""
        news = [c.dealer.has_news or c.connected != c.dealer.connected for c in self._connections]
        if not any(news):
            wait_for([connection.dealer.descriptor for connection in self._connections], timeout_s)

    def close(self) -> None:
        """Give what was sent last a moment to leave; may be called twice."""
        for connection in self._connections:
            connection.dealer.close()
        self._connections.clear()
        self._kept, self._wanted = None, False
        self._context.term()

    def _look_up(self) -> None:
        """Take in where the MEC is now, and try what has not been tried since the last ``connect``."""
        found = self._lookup.take()
        if found is None or not found.addresses:
            return  # what was known may still be true
        self._known = found
        tried = {connection.address for connection in self._connections}
        for address in found.addresses:
            if self._wanted and address not in tried:
                self._open(address)

    def _open(self, address: Endpoint) -> None:
        dealer = Dealer(str(address), self._context, once=True, largest_bytes=self._largest_bytes)
        self._connections.append(Connection(dealer, address, self._clock()))
        while len(self._connections) > _MOST_TRIES:
            self._connections.pop(0).dealer.close(linger_ms=0)

    def _retire(self, began_before_s: float) -> None:
        old = [connection for connection in self._connections if connection.began_s < began_before_s]
        for connection in old:
            connection.dealer.close(linger_ms=0)
            self._connections.remove(connection)
