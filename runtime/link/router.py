"""The MEC's end of all connections: a ZeroMQ ROUTER socket, who is admitted, and which connections are closed."""

from __future__ import annotations

import errno
import math
import select
import socket
import time
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, NamedTuple

import zmq

from controller.errors import FailureError
from runtime.link.connections import Connections
from runtime.link.endpoint import BindEndpoint, parse_bind
from runtime.link.memory_watch import MemoryWatch
from runtime.link.transport import NO_LIMIT, Parts, Transport, bad_endpoint
from runtime.protocol.wire import MAX_PART_BYTES, Buffer
from runtime.security.curve import MecKeys

if TYPE_CHECKING:
    from runtime.security.admission import Admission, TurnedAway

#: A MEC must not keep the connections of devices that were switched off.
_OPTIONS = ((zmq.HEARTBEAT_IVL, 5000), (zmq.HEARTBEAT_TIMEOUT, 15000), (zmq.TCP_MAXRT, 15000))
#: More than a MEC with many devices can grow by its full queue of whole images, unread messages, and what payloads
#: refer to (``runtime.mec.receivers``).
_MOST_GROWTH_BYTES = 1 << 30
#: Time within which the system frees a port after it was closed.
_REBIND_S = 2.0
#: No interface has the address, or the name. At a boot it may get it later, so this is no wrong option.
_NOT_HERE = (errno.EADDRNOTAVAIL, errno.ENODEV)


class Incoming(NamedTuple):
    """A message that arrived at a MEC."""

    peer: bytes  # the connection
    parts: Parts
    user: str = ""  # who the peer has proved to be; empty where connections are not authenticated
    frame: zmq.Frame | None = None  # any part of the message

    @property
    def address(self) -> str:
        """The peer's address without its port, also after it has left; empty if that is not known."""
        try:
            return "" if self.frame is None else str(self.frame.get("Peer-Address"))
        except zmq.ZMQError:
            return ""


class Router(Transport):
    """The MEC's end: every message comes from or goes to a peer.

    ZeroMQ does not limit the parts of a message and keeps them until the last one has arrived. So when the process has
    grown by ``most_growth_bytes``, the socket is closed with all its connections and incomplete messages, a new one
    listens at the same endpoint, and ``on_full`` is called. Devices reconnect within about a second.

    With ``keys`` only those are heard, and answered, whose key is on the list now; ``log`` takes a line for each who is
    not, which a folding log should bound. Connections that send nothing for ``idle_s`` are closed, and those beyond
    ``most_connections``.
    """

    def __init__(
        self,
        endpoint: str,
        largest_bytes: int = MAX_PART_BYTES,
        most_growth_bytes: int = _MOST_GROWTH_BYTES,
        on_full: Callable[[], None] = lambda: None,
        keys: MecKeys | None = None,
        log: Callable[[str], None] = lambda _: None,
        *,
        most_connections: int | None = None,
        idle_s: float = math.inf,
    ) -> None:
        where = parse_bind(endpoint)
        self._most_connections, self._idle_s = most_connections, idle_s
        self._connections: Connections | None = None
        self._memory = MemoryWatch(time.perf_counter, most_growth_bytes)
        self._on_full = on_full
        self._options = (
            *_OPTIONS,
            (zmq.IPV6, int(where.is_ipv6 or (where.host == "*" and socket.has_dualstack_ipv6()))),
            (zmq.RCVHWM, NO_LIMIT),
            (zmq.MAXMSGSIZE, largest_bytes),
            (zmq.ROUTER_MANDATORY, 0),
            *(() if keys is None else keys.options),
        )
        self._admission = None if keys is None else _admission(keys, log)
        super().__init__(zmq.ROUTER, self._options, None)
        try:
            if self._admission is not None:
                self._admission.start(self._context)
            self._bind(where)
        except zmq.ZMQError as error:
            self.close()
            if error.errno == errno.EADDRINUSE:
                text = f"cannot bind {endpoint}: the port is in use; stop what holds it, or bind another port"
                raise FailureError(text) from None
            if error.errno in _NOT_HERE:
                raise FailureError(_not_here(endpoint, where)) from None
            raise bad_endpoint(endpoint, error) from None
        bound = self._socket.get(zmq.LAST_ENDPOINT)
        self._endpoint = bound.decode() if isinstance(bound, bytes) else str(bound)

    @property
    def endpoint(self) -> str:
        """Endpoint of the socket, with the port that the system chose."""
        return self._endpoint

    @property
    def turned_away(self) -> TurnedAway | None:
        """Who was not admitted so far; None where everybody is."""
        return None if self._admission is None else self._admission.turned_away

    @property
    def connections(self) -> int | None:
        """Number of open connections; None if they are not limited."""
        return None if self._connections is None else len(self._connections)

    @property
    def closed_connections(self) -> int:
        """Connections that were closed because they were idle or too many, since the socket was opened."""
        return 0 if self._connections is None else self._connections.closed

    def fingerprint_of(self, peer: bytes) -> str:
        """Of the key behind a connection; empty if it has none."""
        return "" if self._admission is None else self._admission.fingerprint_of(peer)

    def disconnect(self, peer: bytes, bar: bool = True) -> bool:
        """Close the connection of a peer, and ``bar`` its address for a short time. False if it is not known, or
        connections are not limited."""
        return self._connections is not None and self._connections.close(peer, bar)

    def unread_bytes(self, peer: bytes) -> int:
        """Bytes sent to a peer that it has not acknowledged; 0 if that is not known."""
        return 0 if self._connections is None else self._connections.unread_bytes(peer)

    def settle(self) -> None:
        """The program has loaded everything that it needs: measure growth from here."""
        self._memory.reset()

    def send(self, peer: bytes, parts: Sequence[Buffer]) -> bool:
        """Send a message. Returns False if it was lost, because the peer left, does not read, or is not admitted."""
        if self._admission is not None and not self._admission.may_send(peer):
            return False
        return self._send([peer, *parts])

    def receive(self) -> Iterator[Incoming]:
        """Messages that have arrived."""
        if self._memory.is_filling():
            self._start_anew()
            self._memory.reset()
            self._on_full()
        if self._connections is not None:
            self._connections.look()
        if self._admission is None:
            return map(_plain, self._heard())
        self._admission.look()
        return self._admitted()

    def _heard(self) -> Iterator[list[zmq.Frame]]:
        """Messages of everybody, noted as signs of life of their connections."""
        for frames in self._receive():
            if self._connections is None or self._connections.heard(frames[0]):
                yield frames
        if self._connections is not None and self.read_all:
            self._connections.all_read()

    def _admitted(self) -> Iterator[Incoming]:
        """Messages of those whose key is on the list now."""
        assert self._admission is not None
        for frames in self._heard():
            message = _plain(frames)
            if user := self._admission.user_of(message.peer, frames[0]):
                yield message._replace(user=user)
            elif not self._admission.may_send(message.peer):  # else somebody has used another one's id
                self.disconnect(message.peer, bar=False)

    def _release(self) -> None:
        self._stop_watching()
        if self._admission is not None:
            self._admission.stop()

    def _start_anew(self) -> None:
        """Close every connection, and listen at the same endpoint again as soon as the system has freed its port."""
        where, end_s = parse_bind(self._endpoint), time.perf_counter() + _REBIND_S
        self._stop_watching()
        self._socket.close(linger=0)
        self._open(zmq.ROUTER, self._options)
        if self._admission is not None:
            self._admission.forget_all()
        while True:
            try:
                return self._bind(where)
            except zmq.ZMQError as error:
                if error.errno != errno.EADDRINUSE or time.perf_counter() > end_s:
                    raise
            select.select([], [], [], 0.005)

    def _stop_watching(self) -> None:
        if self._connections is not None:
            self._connections.stop()
            self._connections = None

    def _bind(self, where: BindEndpoint) -> None:
        """Bind; without IPv6 if the machine has it disabled."""
        if self._most_connections is not None and self._connections is None:
            self._connections = Connections(self._socket, self._most_connections, self._idle_s, time.perf_counter)
        try:
            self._socket.bind(str(_with_address(where)))
        except zmq.ZMQError as error:
            if where.host != "*" or error.errno not in (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT):
                raise
            self._socket.set(zmq.IPV6, 0)
            self._socket.bind(str(where))


def _plain(frames: list[zmq.Frame]) -> Incoming:
    """A message with the connection that it came from."""
    return Incoming(frames[0].bytes, [frame.buffer for frame in frames[1:]], frame=frames[0])


def _not_here(endpoint: str, where: BindEndpoint) -> str:
    return (
        f"cannot bind {endpoint}: no interface of this machine has {where.host} (yet); see `ip addr`, or bind "
        f"{BindEndpoint('0.0.0.0', where.port)}"
    )


def _admission(keys: MecKeys, log: Callable[[str], None]) -> Admission:
    from runtime.security.admission import Admission  # imports asyncio, which a plain MEC does without

    return Admission(keys, log)


def _with_address(where: BindEndpoint) -> BindEndpoint:
    """Replace a host name by its address, because ZeroMQ binds to addresses only. Names of interfaces stay."""
    if where.host == "*" or where.is_ipv6:
        return where
    try:
        rows = socket.getaddrinfo(where.host, None, socket.AF_INET, socket.SOCK_STREAM)
    except OSError:
        return where
    return BindEndpoint(str(rows[0][4][0]), where.port)
