"""Moves the parts of messages between processes: ZeroMQ DEALER and ROUTER sockets.

No message is interpreted here. Sockets never block: sending returns whether it succeeded, receiving returns what has
arrived, and waiting uses select() on the socket's descriptor, because ``zmq.poll`` counts whole milliseconds. Buffers
larger than ``_COPY_BYTES`` are passed without a copy; for smaller ones, copying is faster than counting references.
"""

from __future__ import annotations

import errno
import math
import select
import socket
import time
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, NamedTuple

import zmq

from controller.errors import FailureError, UsageError
from runtime.link.connections import Connections
from runtime.link.endpoint import BindEndpoint, parse_bind, parse_endpoint
from runtime.link.memory_watch import MemoryWatch
from runtime.link.tcp_state import TcpState, TcpWatch
from runtime.protocol.wire import MAX_HEADER_BYTES, MAX_PART_BYTES, Buffer
from runtime.security.curve import DeviceKeys, MecKeys, Options

if TYPE_CHECKING:
    from runtime.security.admission import Admission, TurnedAway

Parts = list[Buffer]

_COPY_BYTES = 64 << 10
#: Parts of a message on a ROUTER: the peer's address, a header and a buffer.
_MOST_PARTS = 3
#: Most parts per call of ``receive``, so that a flood, or a message of a million parts, cannot block the caller.
_DRAIN_PARTS = 192
#: Longest wait, so that callers notice the flag of a signal handler.
MAX_WAIT_S = 0.1
#: select() wakes 0.1 to 0.3 ms late, so waits end 0.3 ms early. Callers that need an exact time loop until it.
_WAKE_EARLY_S = 0.0003
_SEND_QUEUE = 256
#: Most messages that wait to be read. With the size limit they bound the memory that one peer can fill. A MEC sends no
#: more replies than requests are in flight, a device no more requests than the MEC's queue holds.
_REPLIES_UNREAD, _REQUESTS_UNREAD = 16, 64
_CLOSE_LINGER_MS = 200
#: More than a MEC with many devices can grow by its full queue of whole images, unread messages, and what payloads
#: refer to (``runtime.mec.receivers``).
_MOST_GROWTH_BYTES = 1 << 30
#: Time within which the system frees a port after it was closed.
_REBIND_S = 2.0
# Plain integers: combining the library's flag objects takes longer than asking the socket.
_READABLE, _WRITABLE = int(zmq.POLLIN), int(zmq.POLLOUT)


class _Limits:
    """Socket options; most of them limit how long each side keeps a silent connection."""

    #: A device opens new connections itself; these options only free the resources of the old one. A heartbeat of
    #: ZeroMQ takes about 113 bytes of the uplink, which neither shaper nor twin count: 1 % of 16 kbit/s.
    DEVICE = ((zmq.HEARTBEAT_IVL, 5000), (zmq.HEARTBEAT_TIMEOUT, 3000), (zmq.TCP_MAXRT, 3000))
    #: A MEC must not keep the connections of devices that were switched off.
    MEC = ((zmq.HEARTBEAT_IVL, 5000), (zmq.HEARTBEAT_TIMEOUT, 15000), (zmq.TCP_MAXRT, 15000))
    BOTH = (
        (zmq.HEARTBEAT_TTL, 15000),
        (zmq.TCP_KEEPALIVE, 1),
        (zmq.TCP_KEEPALIVE_IDLE, 5),
        (zmq.TCP_KEEPALIVE_INTVL, 2),
        (zmq.TCP_KEEPALIVE_CNT, 3),
        (zmq.HANDSHAKE_IVL, 5000),
        (zmq.LINGER, 0),
        (zmq.SNDHWM, _SEND_QUEUE),
    )


class _Socket:
    """Base of both ends. Owns one ZeroMQ socket, and its context unless that is shared."""

    def __init__(self, kind: int, options: Options, context: zmq.Context[zmq.Socket[bytes]] | None):
        self._own_context = context is None
        self._context = zmq.Context() if context is None else context
        self._open(kind, options)

    def _open(self, kind: int, options: Options) -> None:
        self._socket = self._context.socket(kind)
        for option, value in (*_Limits.BOTH, *options):
            self._socket.set(option, value)
        self._descriptor = int(self._socket.get(zmq.FD))
        self._last_events = 0
        self._skipping = False  # reading over the rest of a message with too many parts

    @property
    def descriptor(self) -> int:
        """Readable when something may have happened; check ``has_news`` before waiting on it."""
        return self._descriptor

    @property
    def has_news(self) -> bool:
        return bool(self._events() & _READABLE)

    def wait(self, timeout_s: float) -> None:
        """Return shortly before the timeout, or earlier if something may have arrived."""
        if not self.has_news:
            wait_for([self.descriptor], timeout_s)

    def close(self, linger_ms: int = _CLOSE_LINGER_MS) -> None:
        """Close after at most ``linger_ms``, in which the last messages are sent; may be called twice."""
        if not self._socket.closed:
            self._release()
            self._socket.close(linger=linger_ms)
            if self._own_context:
                self._context.term()

    def _release(self) -> None:
        """Close what else uses the context, before the socket: the context ends only when nothing uses it any more."""

    def _events(self) -> int:
        self._last_events = int(self._socket.get(zmq.EVENTS))
        return self._last_events

    def _send(self, parts: Sequence[Buffer]) -> bool:
        try:
            for index, part in enumerate(parts):
                more = zmq.SNDMORE if index + 1 < len(parts) else 0
                self._socket.send(part, zmq.NOBLOCK | more, copy=len(part) < _COPY_BYTES)
        except zmq.ZMQError as error:
            if error.errno in (zmq.EAGAIN, zmq.EHOSTUNREACH):
                return False
            raise
        return True

    def _receive(self) -> Iterator[list[zmq.Frame]]:
        """The frames of messages that have arrived, at most ``_DRAIN_PARTS`` parts.

        A message with too many parts is returned as soon as that is known; later calls read over its rest.
        """
        taken, parts = 0, list[zmq.Frame]()
        while parts or (taken < _DRAIN_PARTS and not self._socket.closed and self.has_news):
            frame = self._socket.recv(zmq.NOBLOCK, copy=False)  # all parts arrive together
            taken += 1
            if self._skipping:
                self._skipping = frame.more
                continue
            parts.append(frame)
            if frame.more and len(parts) <= _MOST_PARTS:
                continue
            self._skipping = frame.more
            done, parts = parts, []
            yield done


def wait_for(descriptors: Sequence[int], timeout_s: float) -> None:
    """Return shortly before the timeout, or earlier if one of them is readable."""
    if timeout_s > _WAKE_EARLY_S:
        select.select(descriptors, [], [], min(timeout_s - _WAKE_EARLY_S, MAX_WAIT_S))


class Dealer(_Socket):
    """The device's end. It sends only while connected, so that a MEC that returns gets no old messages.

    ``once``: one connection only, until its first failure. Otherwise ZeroMQ reconnects by itself, but to an address
    that it looked up in its own thread, and only after TCP has noticed the failure. With ``keys`` the connection is
    encrypted, and only that MEC can answer.
    """

    def __init__(
        self,
        endpoint: str,
        context: zmq.Context[zmq.Socket[bytes]] | None = None,
        *,
        once: bool = False,
        largest_bytes: int = MAX_PART_BYTES,
        keys: DeviceKeys | None = None,
    ) -> None:
        where = parse_endpoint(endpoint)
        options = (
            *_Limits.DEVICE,
            *(() if keys is None else keys.options),
            (zmq.IMMEDIATE, 1),
            (zmq.IPV6, int(where.is_ipv6)),
            (zmq.RCVHWM, _REPLIES_UNREAD),
            (zmq.MAXMSGSIZE, max(largest_bytes, MAX_HEADER_BYTES)),
            (zmq.RECONNECT_IVL, -1 if once else 20),
            (zmq.RECONNECT_IVL_MAX, 0 if once else 500),
        )
        super().__init__(zmq.DEALER, options, context)
        self._tcp = TcpWatch(self._socket)
        try:
            self._socket.connect(str(where))
        except zmq.ZMQError as error:
            self.close()
            raise _bad_endpoint(endpoint, error) from None

    @property
    def connected(self) -> bool:
        """Whether something can be sent."""
        return not self._socket.closed and bool(self._events() & _WRITABLE)

    @property
    def was_connected(self) -> bool:
        """Whether something could be sent when the socket was last asked."""
        return not self._socket.closed and bool(self._last_events & _WRITABLE)

    def tcp_state(self) -> TcpState | None:
        """What the kernel knows of the connection; None without one, or where the system does not tell."""
        return None if self._socket.closed else self._tcp.state()

    def close(self, linger_ms: int = _CLOSE_LINGER_MS) -> None:
        """Close after at most ``linger_ms``, in which the last messages are sent; may be called twice."""
        if not self._socket.closed:
            self._tcp.close()
        super().close(linger_ms)

    def send(self, parts: Sequence[Buffer]) -> bool:
        """Send a message. Returns False if there is no connection."""
        return self._send(parts)

    def receive(self) -> Iterator[Parts]:
        """Messages that have arrived."""
        return ([frame.buffer for frame in frames] for frames in self._receive())


class Incoming(NamedTuple):
    """A message that arrived at a MEC."""

    peer: bytes  # the connection
    parts: Parts
    user: str = ""  # who the peer has proved to be; empty where connections are not authenticated


class Router(_Socket):
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
            *_Limits.MEC,
            (zmq.IPV6, int(where.is_ipv6 or (where.host == "*" and socket.has_dualstack_ipv6()))),
            (zmq.RCVHWM, _REQUESTS_UNREAD),
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
            raise _bad_endpoint(endpoint, error) from None
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

    def disconnect(self, peer: bytes) -> bool:
        """Close the connection of a peer, and bar its address for a short time. False if it is not known, or
        connections are not limited."""
        return self._connections is not None and self._connections.close(peer)

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
        return self._admitted() if self._admission is not None else map(_plain, self._heard())

    def _heard(self) -> Iterator[list[zmq.Frame]]:
        """Messages of everybody, noted as signs of life of their connections."""
        for frames in self._receive():
            if self._connections is None or self._connections.heard(frames[0]):
                yield frames

    def _admitted(self) -> Iterator[Incoming]:
        """Messages of those whose key is on the list now."""
        assert self._admission is not None
        for frames in self._heard():
            message = _plain(frames)
            if user := self._admission.user_of(message.peer, frames[0]):
                yield message._replace(user=user)

    def close(self, linger_ms: int = _CLOSE_LINGER_MS) -> None:
        """The same; connections are watched as long as the socket is open."""
        self._stop_watching()
        super().close(linger_ms)

    def _release(self) -> None:
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
    return Incoming(frames[0].bytes, [frame.buffer for frame in frames[1:]])


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


def _bad_endpoint(endpoint: str, error: zmq.ZMQError) -> UsageError:
    return UsageError(f"endpoint {endpoint!r}: {error.strerror.lower()}; expected tcp://HOST:PORT")
