"""What ZeroMQ tells of a socket's connections: the events of its monitor.

ZeroMQ's own thread sends each event with a call that waits while the queue of events is full. Meanwhile it holds a
lock that closing the socket needs. So whoever connects often, while nobody reads, would stop all connections and even
the end of the program. The queue here has no limit; an event takes some hundred bytes.
"""

from __future__ import annotations

import itertools
import struct
from collections.abc import Iterator

import zmq

#: First part of an event: its kind and its value. (``zmq.utils.monitor`` would import asyncio.)
_EVENT = struct.Struct("=Hi")
_number = itertools.count()


class Monitor:
    """Owns the monitor of a socket. Made before the socket binds or connects."""

    def __init__(self, watched: zmq.Socket[bytes], events: int) -> None:
        address = f"inproc://monitor-{next(_number)}"
        self._watched = watched
        watched.monitor(address, events)
        self._events: zmq.Socket[bytes] = watched.context.socket(zmq.PAIR)
        self._events.set(zmq.LINGER, 0)
        self._events.set(zmq.RCVHWM, 0)
        self._events.connect(address)

    def events(self) -> Iterator[tuple[int, int]]:
        """The events that have arrived: kind and value, which is a descriptor or an error."""
        while int(self._events.get(zmq.EVENTS)) & zmq.POLLIN:
            kind, value = _EVENT.unpack(self._events.recv_multipart(zmq.NOBLOCK)[0])
            yield kind, value

    def wait(self, timeout_s: float) -> bool:
        """Wait for an event; False if none came in time."""
        return bool(self._events.poll(max(int(timeout_s * 1e3) + 1, 0)))

    def close(self) -> None:
        """Stop watching, before the watched socket is closed."""
        self._watched.disable_monitor()
        self._events.close(0)
