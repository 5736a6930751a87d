"""MECs that break the protocol: one sends false replies and floods, one sends a message that never ends."""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
from collections.abc import Callable

import zmq

from controller.errors import RemoteProtocolError
from runtime.protocol import wire

#: Longest wait for the other side of a handshake.
HANDSHAKE_S = 5.0
#: ZMTP 3.1 without encryption.
_GREETING = b"\xff" + bytes(8) + b"\x7f\x03\x01" + b"NULL".ljust(20, b"\0") + bytes(32)

Answer = Callable[[wire.AnyMessage], list[list[bytes]]]


class Hostile:
    """A MEC that replies with ``answer(message)``, and sends ``flood`` to all peers as fast as it can."""

    def __init__(self, answer: Answer, flood: list[bytes] | None = None) -> None:
        self._context = zmq.Context()
        self._socket = self._context.socket(zmq.ROUTER)
        for option, value in ((zmq.LINGER, 0), (zmq.SNDHWM, 50), (zmq.ROUTER_MANDATORY, 1), (zmq.SNDTIMEO, 0)):
            self._socket.set(option, value)
        self.endpoint = f"tcp://127.0.0.1:{self._socket.bind_to_random_port('tcp://127.0.0.1')}"
        self._answer, self.flood = answer, flood
        self._peers: set[bytes] = set()
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def __enter__(self) -> Hostile:
        return self

    def __exit__(self, *_: object) -> None:
        self._stopping.set()
        self._thread.join()
        self._socket.close()
        self._context.term()

    def _serve(self) -> None:
        while not self._stopping.is_set():
            if self._socket.poll(1):
                peer, *parts = self._socket.recv_multipart()
                self._peers.add(peer)
                for answer in self._answers(parts):
                    self._send(peer, answer)
            for peer in tuple(self._peers if self.flood else ()):
                for _ in range(50):
                    self._send(peer, self.flood or [])

    def _answers(self, parts: list[bytes]) -> list[list[bytes]]:
        try:
            return self._answer(wire.decode(parts)[0])
        except RemoteProtocolError:  # a hello of an old version
            return []

    def _send(self, peer: bytes, parts: list[bytes]) -> None:
        try:
            self._socket.send_multipart([peer, *parts])
        except zmq.ZMQError as error:
            if error.errno == zmq.EHOSTUNREACH:  # the peer left
                self._peers.discard(peer)


def encoded(message: wire.AnyMessage, buffer: bytes = b"") -> list[bytes]:
    return [bytes(part) for part in wire.encode(message, buffer)]


def welcome(held: wire.Held) -> list[bytes]:
    return encoded(wire.Welcome("mec-1", held, 1.0))


def polite(held: wire.Held) -> Answer:
    """An answer function that welcomes devices and answers heartbeats, but not requests."""

    def answer(message: wire.AnyMessage) -> list[list[bytes]]:
        if isinstance(message, wire.Ping):
            return [encoded(wire.Pong(message.ping_id))]
        return [welcome(held)] if isinstance(message, wire.Hello) else []

    return answer


def leaving(held: wire.Held) -> Answer:
    """An answer function that welcomes devices and says good-bye at once."""
    greet = polite(held)

    def answer(message: wire.AnyMessage) -> list[list[bytes]]:
        return [*greet(message), encoded(wire.Bye())]

    return answer


class Endless:
    """A MEC that welcomes a device and then sends one message with endless parts, written by hand as ZMTP 3.1."""

    def __init__(self, held: wire.Held) -> None:
        self._welcome = welcome(held)[0]
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.endpoint = f"tcp://127.0.0.1:{self._listener.getsockname()[1]}"
        threading.Thread(target=self._serve, daemon=True).start()

    def __enter__(self) -> Endless:
        return self

    def __exit__(self, *_: object) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def _serve(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                self._pour(self._listener.accept()[0])

    def _pour(self, victim: socket.socket) -> None:
        parts = frame(bytes(2000), flags=1) * 500
        with victim, contextlib.suppress(OSError):
            shake_hands(victim, b"ROUTER")
            victim.sendall(frame(self._welcome, flags=0))
            while True:
                victim.sendall(parts)


def shake_hands(peer: socket.socket, kind: bytes) -> None:
    """Greet a ZeroMQ peer as a socket of this kind, and wait for its half of the handshake. OSError if it leaves or
    takes longer than ``HANDSHAKE_S``.

    The wait is needed: libzmq closes a connection on which a message arrives before it has sent its own READY. Whether
    that is so depends on how its thread is scheduled.
    """
    before_s = peer.gettimeout()
    peer.settimeout(HANDSHAKE_S)
    ready = b"\x05READY\x0bSocket-Type" + struct.pack(">I", len(kind)) + kind + b"\x08Identity\0\0\0\0"
    peer.sendall(_GREETING + frame(ready, flags=4))
    with peer.makefile("rb") as stream:
        length = stream.read(len(_GREETING) + 2)[-1:]  # of its READY, which is a short frame
        if not length or len(stream.read(length[0])) < length[0]:
            raise ConnectionError("the peer left during the handshake")
    peer.settimeout(before_s)


def frame(body: bytes, flags: int) -> bytes:
    """A part of a ZMTP message. flags: 1 if more parts follow, 4 for a command."""
    return struct.pack(">BQ", flags | 2, len(body)) + body
