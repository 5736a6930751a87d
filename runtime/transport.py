"""How do parts of messages get from one process to the other? ZeroMQ DEALER and ROUTER, thin and dull.

No message is interpreted here. Sockets never block: sending says whether it could, receiving drains what is there,
waiting is on the socket's descriptor with microseconds (``zmq.poll`` counts whole milliseconds). Buffers beyond
``_COPY_BYTES`` are handed over without a copy; below, copying is quicker than counting references.
"""

from __future__ import annotations

import errno
import select
from collections.abc import Sequence

import zmq

from controller.errors import FailureError, UsageError
from runtime.wire import MAX_PART_BYTES, Buffer

Parts = list[Buffer]

_COPY_BYTES = 64 << 10
#: A peer's address, a header and a buffer.
_MOST_PARTS = 3
#: At most so many messages per drain, so that a flood cannot starve the work.
_DRAIN_LIMIT = 64
#: Longest wait, so that a signal's flag is seen.
MAX_WAIT_S = 0.1
#: A sleeper is woken 0.1 to 0.3 ms late, so a wait ends so much early: who waits for a moment asks again until then.
_WAKE_EARLY_S = 0.0003
_SEND_QUEUE, _RECEIVE_QUEUE = 256, 1024
_CLOSE_LINGER_MS = 200
#: Messages that wait for the MEC from one peer; more stay with the peer. Each may have 4 MB.
_PEER_QUEUE = 32


class _Socket:
    """What both ends share. Owns one ZeroMQ socket and its context."""

    def __init__(self, kind: int) -> None:
        self._context = zmq.Context()
        self._socket = self._context.socket(kind)
        for option, value in (
            (zmq.LINGER, 0),
            (zmq.MAXMSGSIZE, MAX_PART_BYTES),
            (zmq.SNDHWM, _SEND_QUEUE),
            (zmq.RCVHWM, _RECEIVE_QUEUE),
            (zmq.RECONNECT_IVL, 20),
            (zmq.RECONNECT_IVL_MAX, 500),
            (zmq.HANDSHAKE_IVL, 2000),
        ):
            self._socket.set(option, value)
        self._descriptor = int(self._socket.get(zmq.FD))

    def wait(self, timeout_s: float) -> None:
        """Return when something may have arrived, or shortly before the timeout."""
        if timeout_s <= _WAKE_EARLY_S or self._readable():
            return
        select.select([self._descriptor], [], [], min(timeout_s - _WAKE_EARLY_S, MAX_WAIT_S))

    def close(self) -> None:
        """Give what was sent last a moment to leave; may be called twice."""
        if not self._socket.closed:
            self._socket.close(linger=_CLOSE_LINGER_MS)
            self._context.term()

    def _readable(self) -> bool:
        return bool(int(self._socket.get(zmq.EVENTS)) & zmq.POLLIN)

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

    def _receive(self) -> list[Parts]:
        """Every message that is there, at most ``_DRAIN_LIMIT``; of one with too many parts, the first few."""
        messages: list[Parts] = []
        while len(messages) < _DRAIN_LIMIT and self._readable():
            parts: Parts = []
            more = True
            while more:  # the rest of a message is there when its first part is
                frame = self._socket.recv(zmq.NOBLOCK, copy=False)
                more = frame.more
                if len(parts) <= _MOST_PARTS:
                    parts.append(frame.buffer)
            messages.append(parts)
        return messages


class Dealer(_Socket):
    """The device's end. Sends only while connected, so that nothing old is sent to a MEC that comes back."""

    def __init__(self, endpoint: str) -> None:
        super().__init__(zmq.DEALER)
        self._socket.set(zmq.IMMEDIATE, 1)
        try:
            self._socket.connect(endpoint)
        except zmq.ZMQError as error:
            self.close()
            raise _bad_endpoint(endpoint, error) from None

    def send(self, parts: Sequence[Buffer]) -> bool:
        """Hand over a message; False when there is no connection."""
        return self._send(parts)

    def receive(self) -> list[Parts]:
        return self._receive()


class Router(_Socket):
    """The MEC's end: every message has the peer it comes from or goes to."""

    def __init__(self, endpoint: str) -> None:
        super().__init__(zmq.ROUTER)
        self._socket.set(zmq.ROUTER_MANDATORY, 0)
        self._socket.set(zmq.RCVHWM, _PEER_QUEUE)
        try:
            self._socket.bind(endpoint)
        except zmq.ZMQError as error:
            self.close()
            if error.errno == errno.EADDRINUSE:
                text = f"cannot bind {endpoint}: the port is in use; stop what holds it, or bind another port"
                raise FailureError(text) from None
            raise _bad_endpoint(endpoint, error) from None
        where = self._socket.get(zmq.LAST_ENDPOINT)
        self._endpoint = where.decode() if isinstance(where, bytes) else str(where)

    @property
    def endpoint(self) -> str:
        """Where it is really bound (a port chosen by the system included)."""
        return self._endpoint

    def send(self, peer: bytes, parts: Sequence[Buffer]) -> bool:
        """Hand over a message; a peer that left or does not read loses it."""
        return self._send([peer, *parts])

    def receive(self) -> list[tuple[bytes, Parts]]:
        return [(bytes(parts[0]), parts[1:]) for parts in self._receive()]


def _bad_endpoint(endpoint: str, error: zmq.ZMQError) -> UsageError:
    return UsageError(f"endpoint {endpoint!r}: {error.strerror.lower()}; expected tcp://HOST:PORT")
