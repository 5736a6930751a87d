"""The connections of a MEC: closes what is idle, what is too many, and what its owner asks for.

ZeroMQ shows the connections of a ROUTER in two ways only. Its monitor tells when one was accepted or ended, by the
number of its descriptor; and each message can be asked through which descriptor it came. Closing that descriptor would
pull it from under ZeroMQ's own thread. ``shutdown`` on a copy of it is what a peer that leaves looks like: ZeroMQ then
ends the connection itself. A number may belong to another connection by then, so the peer's address is compared first.
The copy takes the place of a descriptor that is reserved for it, because a MEC that has none left must close
connections all the more.

Messages of a connection that has ended may still wait to be read, and name a descriptor that belongs to another one by
now. So a connection gets no name by a message through such a number before nothing waited once. In a flood that may
never be, so it is also enough that many more messages were read: ZeroMQ takes turns between connections.

A plain peer that is closed because it floods would connect again at once. So its address is barred for a short time:
longer would harm others behind the same address.

Peers of ZMTP 1 and 2 send messages without such properties. No device speaks these versions, so their messages are not
heard, and their connections are closed as mute.

Beyond ``most`` connections, one that never said anything is closed first, then the one that was silent longest. So
strangers that only connect cannot keep devices out, whose pings are frequent.
"""

from __future__ import annotations

import itertools
import os
import socket
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import zmq

from runtime.link.monitor import Monitor
from runtime.link.tcp_state import queued_bytes

#: Interval between two looks at the monitor.
_LOOK_EVERY_S = 0.02
#: A connection that never said anything is closed after this time, if not earlier.
MUTE_S = 10.0
#: An ended connection has rarely left more messages than these.
_MOST_LEFT = 128
#: No new connections from an address after one of it was closed at its owner's request. Its other connections stay.
BAR_S = 2.0
_MOST_BARRED = 1024
#: Events of one look; the rest is for the next one.
_MOST_EVENTS = 256


@dataclass(slots=True)
class _Connection:
    address: Any  # of the peer, as the socket module gives it; None if it had left already
    heard_s: float
    peer: bytes = b""  # its name in the ROUTER, once it was heard


class Connections:
    """Owns what is known of the connections of one bound ZeroMQ socket. Call ``look`` often."""

    def __init__(self, bound: zmq.Socket[bytes], most: int, idle_s: float, clock: Callable[[], float]) -> None:
        self._most, self._idle_s, self._clock = most, idle_s, clock
        self._monitor = Monitor(bound, zmq.EVENT_ACCEPTED | zmq.EVENT_DISCONNECTED)
        self._copies = _Copies()
        self._open: dict[int, _Connection] = {}  # by descriptor
        self._descriptors: dict[bytes, int] = {}  # by peer
        self._messages = 0  # read so far
        self._left: dict[int, int] = {}  # descriptor of an ended connection -> how many are read before it is sure
        self._barred_until_s: dict[str, float] = {}  # by address
        self._look_s = clock()
        self.closed = 0  # because they were idle or too many

    def __len__(self) -> int:
        return len(self._open)

    def heard(self, sender: zmq.Frame) -> bool:
        """A message came, whose first frame names its sender. False if ZeroMQ does not say through which connection:
        it came by a version of ZMTP before 3.0, which no device speaks."""
        try:
            descriptor = int(sender.get(zmq.SRCFD))
        except zmq.ZMQError:
            return False
        self._messages += 1
        connection = self._open.get(descriptor)
        if connection is None:
            return True  # its event has not been read yet
        connection.heard_s = self._clock()
        if not connection.peer and self._messages > self._left.get(descriptor, 0):
            connection.peer = sender.bytes
            self._descriptors[connection.peer] = descriptor
        return True

    def all_read(self) -> None:
        """No message waits to be read, so there is none of an ended connection."""
        self._left.clear()

    def look(self) -> None:
        """Learn of new and ended connections, and close what is idle or too much."""
        now_s = self._clock()
        if now_s < self._look_s:
            return
        self._look_s = now_s + _LOOK_EVERY_S
        for event, descriptor in itertools.islice(self._monitor.events(), _MOST_EVENTS):
            self._ended(descriptor)  # a number that is given anew has ended before
            if event == zmq.EVENT_ACCEPTED:
                self._accepted(descriptor, now_s)
        silent_s, mute_s = now_s - self._idle_s, now_s - min(self._idle_s, MUTE_S)
        for descriptor in [n for n, one in self._open.items() if one.heard_s < (silent_s if one.peer else mute_s)]:
            self._shut(descriptor)
        while len(self._open) > self._most:
            self._shut(min(self._open, key=self._worth))

    def close(self, peer: bytes, bar: bool = True) -> bool:
        """Close the connection of a peer, and ``bar`` its address for ``BAR_S``; False if it is not known."""
        descriptor = self._descriptors.get(peer)
        if descriptor is None:
            return False
        if bar and (address := self._open[descriptor].address):
            if len(self._barred_until_s) >= _MOST_BARRED:
                self._barred_until_s.clear()
            self._barred_until_s[address[0]] = self._clock() + BAR_S
        self._end(descriptor)
        return True

    def unread_bytes(self, peer: bytes) -> int:
        """Bytes sent to a peer that it has not acknowledged; 0 if that is not known."""
        descriptor = self._descriptors.get(peer)
        return 0 if descriptor is None else queued_bytes(descriptor) or 0

    def stop(self) -> None:
        """Stop watching, before the socket is closed."""
        self._monitor.close()
        self._copies.close()

    def _accepted(self, descriptor: int, now_s: float) -> None:
        address = self._copies.address(descriptor)
        self._open[descriptor] = _Connection(address, now_s)
        if address and now_s < self._barred_until_s.get(address[0], 0.0):
            self._end(descriptor)

    def _worth(self, descriptor: int) -> tuple[bool, float]:
        """Those that never said anything are worth least, then those that were silent longest."""
        connection = self._open[descriptor]
        return bool(connection.peer), connection.heard_s

    def _shut(self, descriptor: int) -> None:
        self.closed += 1
        self._end(descriptor)

    def _end(self, descriptor: int) -> None:
        address = self._open[descriptor].address
        self._ended(descriptor)
        self._copies.shut(descriptor, address)

    def _ended(self, descriptor: int) -> None:
        connection = self._open.pop(descriptor, None)
        if connection is None:
            return
        self._left[descriptor] = self._messages + _MOST_LEFT * (len(self._open) + 1)
        if self._descriptors.get(connection.peer) == descriptor:
            del self._descriptors[connection.peer]


class _Copies:
    """Owns a descriptor that stands for that of a connection while something is done with it."""

    def __init__(self) -> None:
        self._nothing = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
        self._copy = os.dup(self._nothing)

    def address(self, descriptor: int) -> Any:
        """Address of the peer at a descriptor; None if it has left."""
        return self._with(descriptor, lambda one: one.getpeername())

    def shut(self, descriptor: int, address: Any) -> None:
        """Shut a connection down if it is the one with that address."""
        self._with(descriptor, lambda one: one.shutdown(socket.SHUT_RDWR) if one.getpeername() == address else None)

    def close(self) -> None:
        os.close(self._copy)
        os.close(self._nothing)

    def _with(self, descriptor: int, do: Callable[[socket.socket], Any]) -> Any:
        """What is found with a copy; None if the descriptor is no connection any more."""
        try:
            os.dup2(descriptor, self._copy, inheritable=False)
            one = socket.socket(fileno=self._copy)
            try:
                return do(one)
            finally:
                one.detach()
        except OSError:
            return None
        finally:
            os.dup2(self._nothing, self._copy, inheritable=False)
