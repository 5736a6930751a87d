"""A peer that answers as it likes and floods whoever it knows."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable

import zmq
from peers import DIGEST

from runtime import wire


class Hostile:
    """A peer that answers as it likes, and sends ``flood`` to everyone it knows as fast as it can."""

    def __init__(
        self, answer: Callable[[wire.AnyMessage], list[list[bytes]]], flood: list[bytes] | None = None
    ) -> None:
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
                for answer in self._answer(wire.decode(parts)[0]):
                    self._send(peer, answer)
            for peer in tuple(self._peers if self.flood else ()):
                for _ in range(50):
                    self._send(peer, self.flood or [])

    def _send(self, peer: bytes, parts: list[bytes]) -> None:
        with contextlib.suppress(zmq.Again, zmq.ZMQError):
            self._socket.send_multipart([peer, *parts])


def encoded(message: wire.AnyMessage, buffer: bytes = b"") -> list[bytes]:
    return [bytes(part) for part in wire.encode(message, buffer)]


WELCOME = encoded(wire.Welcome("mec-1", DIGEST, 1.0))


def polite(message: wire.AnyMessage) -> list[list[bytes]]:
    if isinstance(message, wire.Ping):
        return [encoded(wire.Pong(message.ping_id, 0))]
    return [WELCOME] if isinstance(message, wire.Hello) else []
