"""The device's end of a connection: a ZeroMQ DEALER socket."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import zmq

from runtime.link.endpoint import parse_endpoint
from runtime.link.tcp_state import TcpState, TcpWatch
from runtime.link.transport import NO_LIMIT, WRITABLE, Parts, Transport, bad_endpoint
from runtime.protocol.wire import MAX_HEADER_BYTES, MAX_PART_BYTES, Buffer
from runtime.security.curve import DeviceKeys

#: A device opens new connections itself; these options only free the resources of the old one. A heartbeat of
#: ZeroMQ takes about 113 bytes of the uplink, which neither shaper nor twin count: 1 % of 16 kbit/s.
_OPTIONS = ((zmq.HEARTBEAT_IVL, 5000), (zmq.HEARTBEAT_TIMEOUT, 3000), (zmq.TCP_MAXRT, 3000))


class Dealer(Transport):
    """The device's end. It sends only while connected, so that a MEC that returns gets no old messages.

    ``once``: one connection only, until its first failure. Otherwise ZeroMQ reconnects by itself, but to an address
    that it looked up in its own thread, and only after TCP has noticed the failure. With ``keys`` the connection is
    encrypted, and only that MEC can answer. ``watch_tcp`` is for who asks for ``tcp_state`` again and again: events
    that nobody reads would in the end block ZeroMQ's thread.
    """

    def __init__(
        self,
        endpoint: str,
        context: zmq.Context[zmq.Socket[bytes]] | None = None,
        *,
        once: bool = False,
        largest_bytes: int = MAX_PART_BYTES,
        keys: DeviceKeys | None = None,
        watch_tcp: bool = False,
    ) -> None:
        where = parse_endpoint(endpoint)
        options = (
            *_OPTIONS,
            *(() if keys is None else keys.options),
            (zmq.IMMEDIATE, 1),
            (zmq.IPV6, int(where.is_ipv6)),
            (zmq.RCVHWM, NO_LIMIT),
            (zmq.MAXMSGSIZE, max(largest_bytes, MAX_HEADER_BYTES)),
            (zmq.RECONNECT_IVL, -1 if once else 20),
            (zmq.RECONNECT_IVL_MAX, 0 if once else 500),
        )
        super().__init__(zmq.DEALER, options, context)
        self._tcp = TcpWatch(self._socket) if watch_tcp else None
        try:
            self._socket.connect(str(where))
        except zmq.ZMQError as error:
            self.close()
            raise bad_endpoint(endpoint, error) from None

    @property
    def connected(self) -> bool:
        """Whether something can be sent."""
        return not self._socket.closed and bool(self._events() & WRITABLE)

    @property
    def was_connected(self) -> bool:
        """Whether something could be sent when the socket was last asked."""
        return not self._socket.closed and bool(self._last_events & WRITABLE)

    def tcp_state(self) -> TcpState | None:
        """What the kernel knows of the connection; None without one, where it is not watched, or where the system does
        not tell."""
        return None if self._tcp is None or self._socket.closed else self._tcp.state()

    def _release(self) -> None:
        if self._tcp is not None:
            self._tcp.close()

    def send(self, parts: Sequence[Buffer]) -> bool:
        """Send a message. Returns False if there is no connection."""
        return self._send(parts)

    def receive(self) -> Iterator[Parts]:
        """Messages that have arrived."""
        return ([frame.buffer for frame in frames] for frames in self._receive())
