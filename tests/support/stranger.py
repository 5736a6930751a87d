"""A peer of a MEC that may send anything, over a real socket."""

from __future__ import annotations

from typing import Self

import zmq

from runtime.protocol import wire


class Stranger:
    """Owns a socket. An answer that takes longer than ``patience_ms`` is an error."""

    def __init__(self, endpoint: str, patience_ms: int) -> None:
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self.socket = self._context.socket(zmq.DEALER)
        self.socket.set(zmq.LINGER, 0)
        self.socket.set(zmq.RCVTIMEO, patience_ms)
        self.socket.connect(endpoint)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.close()
        self._context.term()

    def ask(self, message: wire.AnyMessage, buffer: bytes = b"") -> wire.AnyMessage:
        self.socket.send_multipart(wire.encode(message, buffer))
        return wire.decode(self.socket.recv_multipart())[0]
