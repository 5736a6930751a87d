"""Moves the parts of messages between processes: what both ends share, ``dealer`` of a device and ``router`` of a MEC.

No message is interpreted here. Sockets never block: sending returns whether it succeeded, receiving returns what has
arrived, and waiting uses select() on the socket's descriptor, because ``zmq.poll`` counts whole milliseconds. Buffers
larger than ``_COPY_BYTES`` are passed without a copy; for smaller ones, copying is faster than counting references.
"""

from __future__ import annotations

import select
from collections.abc import Iterator, Sequence

import zmq

from controller.errors import UsageError
from runtime.protocol.wire import Buffer
from runtime.security.curve import Options

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
#: select() knows descriptors below this one only. Above, poll() waits to the millisecond, rounded down.
_SELECTABLE = 1024
_SEND_QUEUE = 256
#: No limit of the messages that wait to be read. At a limit ZeroMQ (4.3.5) stops reading from the connection. If the
#: peer leaves then, a ping, of the peer or of its own, ends the process by a failed assertion: anybody could do that.
#: What waits is limited by the growth of the process instead, and by closing the connections of those who flood.
NO_LIMIT = 0
_CLOSE_LINGER_MS = 200
# Plain integers: combining the library's flag objects takes longer than asking the socket.
_READABLE, WRITABLE = int(zmq.POLLIN), int(zmq.POLLOUT)


#: Options of both ends. Most of them limit how long a side keeps a silent connection.
_OPTIONS = (
    (zmq.HEARTBEAT_TTL, 15000),
    (zmq.TCP_KEEPALIVE, 1),
    (zmq.TCP_KEEPALIVE_IDLE, 5),
    (zmq.TCP_KEEPALIVE_INTVL, 2),
    (zmq.TCP_KEEPALIVE_CNT, 3),
    (zmq.HANDSHAKE_IVL, 5000),
    (zmq.LINGER, 0),
    (zmq.SNDHWM, _SEND_QUEUE),
)


class Transport:
    """Base of both ends. Owns one ZeroMQ socket, and its context unless that is shared."""

    def __init__(self, kind: int, options: Options, context: zmq.Context[zmq.Socket[bytes]] | None):
        self._own_context = context is None
        self._context = zmq.Context() if context is None else context
        self._open(kind, options)

    def _open(self, kind: int, options: Options) -> None:
        self._socket = self._context.socket(kind)
        for option, value in (*_OPTIONS, *options):
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

    @property
    def read_all(self) -> bool:
        """Whether nothing waited to be read when the socket was last asked."""
        return not self._last_events & _READABLE

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
    if timeout_s <= _WAKE_EARLY_S:
        return
    wait_s = min(timeout_s - _WAKE_EARLY_S, MAX_WAIT_S)
    if max(descriptors, default=0) < _SELECTABLE:
        select.select(descriptors, [], [], wait_s)
    else:
        poll = select.poll()
        for descriptor in descriptors:
            poll.register(descriptor, select.POLLIN)
        poll.poll(int(wait_s * 1e3))


def bad_endpoint(endpoint: str, error: zmq.ZMQError) -> UsageError:
    return UsageError(f"endpoint {endpoint!r}: {error.strerror.lower()}; expected tcp://HOST:PORT")
