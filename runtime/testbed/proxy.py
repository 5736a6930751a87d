"""A TCP proxy on loopback that can reset, delay, narrow, swallow and forget connections."""

from __future__ import annotations

import enum
import math
import selectors
import socket
import threading
import time
from dataclasses import dataclass, field

from runtime.testbed.flow import Flow

_LOOK_EVERY_S = 0.01
#: Most bytes that are read at once while the link is narrow: each read crosses as one piece.
_PIECE_BYTES = 1024


class Mode(enum.Enum):
    """What happens to bytes and to new connections."""

    PASS = "pass"
    CUT = "cut"  # connections are reset and new ones refused
    HOLD = "hold"  # nothing is read: bytes and new connections wait until the mode changes
    SWALLOW = "swallow"  # connections are accepted and stay open, every byte is lost


@dataclass(eq=False)
class _Pair:
    """A client's connection and the one to the target. A forgotten pair loses all bytes."""

    client: socket.socket
    server: socket.socket
    forgotten: bool = False
    up: Flow = field(default_factory=Flow)
    down: Flow = field(default_factory=Flow)

    def other(self, end: socket.socket) -> socket.socket:
        return self.server if end is self.client else self.client

    def close(self) -> None:
        self.client.close()
        self.server.close()


class Proxy:
    """Owns a listening port and a thread. ``port`` does not change when the mode does."""

    def __init__(self, target: tuple[str, int], host: str = "127.0.0.1") -> None:
        self.target, self.host = target, host
        self.mode = Mode.PASS
        self.accepted = 0
        self._uplink_bps, self._delay_s = math.inf, 0.0
        self._paced = False  # whether bytes have ever waited for the rate or the delay
        self._pairs: list[_Pair] = []
        self._lock = threading.RLock()
        self._selector = selectors.DefaultSelector()
        self._listener: socket.socket | None = None
        self.port = 0
        self._listen()
        self._stopping = False
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    @property
    def endpoint(self) -> str:
        return f"tcp://{self.host}:{self.port}"

    def set(self, mode: Mode) -> None:
        with self._lock:
            self.mode = mode
            if mode is Mode.CUT:
                self._unlisten()
                for pair in self._pairs.copy():
                    self._drop(pair)
            elif self._listener is None:
                self._listen()
            if mode is Mode.SWALLOW:
                self.forget()

    def pace(self, uplink_bps: float = math.inf, delay_s: float = 0.0) -> None:
        """Give each connection a bandwidth upwards, and a delay in both directions."""
        with self._lock:
            self._uplink_bps, self._delay_s, self._paced = uplink_bps, delay_s, True

    def forget(self) -> None:
        """Act as a router that lost its table: old connections stay open and carry nothing, new ones work."""
        with self._lock:
            for pair in self._pairs:
                pair.forgotten = True

    def close(self) -> None:
        self._stopping = True
        self._thread.join()
        self.set(Mode.CUT)
        self._selector.close()

    def __enter__(self) -> Proxy:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _listen(self) -> None:
        self._listener = socket.create_server((self.host, self.port))
        self.port = self._listener.getsockname()[1]
        self._selector.register(self._listener, selectors.EVENT_READ)

    def _unlisten(self) -> None:
        if self._listener is not None:
            self._selector.unregister(self._listener)
            self._listener.close()
            self._listener = None

    def _serve(self) -> None:
        while not self._stopping:
            if self._holds() or not self._selector.get_map():
                time.sleep(_LOOK_EVERY_S)
                continue
            for key, _ in self._selector.select(_LOOK_EVERY_S / 5.0 if self._paced else _LOOK_EVERY_S):
                with self._lock:
                    if not self._holds() and key.fd in self._selector.get_map():
                        self._move(key)
            if self._paced:
                with self._lock:
                    self._deliver()

    def _holds(self) -> bool:
        return self.mode is Mode.HOLD

    def _move(self, key: selectors.SelectorKey) -> None:
        if key.fileobj is self._listener:
            self._accept()
            return
        pair, end = key.data
        if pair not in self._pairs:
            return  # dropped together with its other end
        try:
            data = end.recv(_PIECE_BYTES if self._paced else 65536)
            if not data:
                raise ConnectionError
            if pair.forgotten:
                return
            if self._paced:
                self._queue(pair, end, data)
            else:
                pair.other(end).sendall(data)
        except OSError:
            self._drop(pair)

    def _queue(self, pair: _Pair, end: socket.socket, data: bytes) -> None:
        is_up = end is pair.client
        flow, rate_bps = (pair.up, self._uplink_bps) if is_up else (pair.down, math.inf)
        flow.push(data, time.monotonic(), rate_bps, self._delay_s)

    def _deliver(self) -> None:
        now_s = time.monotonic()
        for pair in self._pairs.copy():
            try:
                for flow, end in ((pair.up, pair.server), (pair.down, pair.client)):
                    if (data := flow.pop(now_s)) and not pair.forgotten:
                        end.sendall(data)
            except OSError:
                self._drop(pair)

    def _accept(self) -> None:
        assert self._listener is not None
        client, _ = self._listener.accept()
        self.accepted += 1
        try:
            server = socket.create_connection(self.target, 1.0)
        except OSError:
            client.close()
            return
        pair = _Pair(client, server, forgotten=self.mode is Mode.SWALLOW)
        self._pairs.append(pair)
        for end in (client, server):
            self._selector.register(end, selectors.EVENT_READ, (pair, end))

    def _drop(self, pair: _Pair) -> None:
        self._pairs.remove(pair)
        for end in (pair.client, pair.server):
            self._selector.unregister(end)
            end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\0\0\0\0\0\0\0")  # a reset, not a good-bye
        pair.close()
