"""Real peers of the protocol without computation: a MEC that welcomes and echoes in a thread, and a device that only
keeps its link. Both use the product's sessions and sockets."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Sequence

from controller.errors import RemoteProtocolError
from runtime.link.endpoint import parse_endpoint
from runtime.link.link import Arrival, Connected, DirectLink, Malformed
from runtime.link.router import Router
from runtime.link.transport import Parts
from runtime.protocol import wire
from runtime.protocol.device_actions import (
    Disconnect,
    LinkChanged,
    LinkState,
    Reconnect,
    Transmit,
)
from runtime.protocol.device_session import DeviceSession
from runtime.protocol.mec_session import MecSession, SendTo
from runtime.security.curve import DeviceKeys, MecKeys

HELD = wire.Held("campus", "d1" * 32, "e1" * 32)


class Greeter:
    """A MEC in a thread that ignores requests and answers everything else."""

    def __init__(
        self,
        endpoint: str = "tcp://127.0.0.1:*",
        instance: str = "mec-1",
        keys: MecKeys | None = None,
        log: Callable[[str], None] = lambda _: None,
    ) -> None:
        self.router = Router(endpoint, keys=keys, log=log)
        self.endpoint = self.router.endpoint
        self.session = MecSession(instance, [HELD], 1.0)
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    @property
    def address(self) -> tuple[str, int]:
        where = parse_endpoint(self.endpoint)
        return where.host, where.port

    def __enter__(self) -> Greeter:
        return self

    def __exit__(self, *_: object) -> None:
        self._stopping.set()
        self._thread.join()
        self.router.close()

    def _serve(self) -> None:
        while not self._stopping.is_set():
            self.router.wait(0.02)
            for peer, parts, *_ in self.router.receive():
                for action in self._actions(peer, parts):
                    if isinstance(action, SendTo):
                        self.router.send(peer, wire.encode(action.message))

    def _actions(self, peer: bytes, parts: Parts) -> Sequence[object]:
        try:
            message, buffer = wire.decode(parts)
        except RemoteProtocolError as error:  # a hello of an old version
            return self.session.malformed(peer, error)
        return self.session.receive(peer, message, buffer, time.monotonic())


class Keeper:
    """A device that only keeps its link; ``look`` must be called often, as a device polls."""

    def __init__(self, endpoint: str, largest_bytes: int = 4096, keys: DeviceKeys | None = None) -> None:
        self.link = DirectLink(parse_endpoint(endpoint), time.perf_counter, largest_bytes, keys)
        self.session = DeviceSession("keeper", HELD)
        self.changes: list[LinkChanged] = []
        self.reconnects = 0
        self.longest_s = 0.0  # duration of the longest ``look``
        self.looks = 0

    @property
    def up(self) -> bool:
        return self.session.state is LinkState.UP

    def look(self, wait_s: float = 0.02) -> None:
        began_s = time.perf_counter()
        actions = []
        for event in self.link.receive():
            now_s = time.perf_counter()
            if isinstance(event, Arrival):
                actions += self.session.receive(event.message, event.buffer, event.at_s)
            elif isinstance(event, Malformed):
                actions += self.session.malformed(event.error, time.perf_counter())
            elif isinstance(event, Connected):
                self.session.connected(now_s)
            else:
                actions += self.session.unsendable(now_s)
        for action in [*actions, *self.session.tick(time.perf_counter())]:
            match action:
                case Transmit():
                    self.link.send(action.message, action.buffer)
                case Reconnect():
                    self.reconnects += 1
                    self.link.connect()
                case Disconnect():
                    self.link.disconnect()
                case LinkChanged():
                    self.changes.append(action)
        self.looks += 1
        self.longest_s = max(self.longest_s, time.perf_counter() - began_s)
        self.link.wait(min(time.perf_counter() + wait_s, self.session.next_tick_s))

    def until(self, true: Callable[[], bool], limit_s: float) -> float:
        """Seconds until ``true()`` holds; infinity if it does not within the limit."""
        began_s = time.perf_counter()
        while time.perf_counter() < began_s + limit_s:
            self.look()
            if true():
                return time.perf_counter() - began_s
        return math.inf

    def for_(self, duration_s: float) -> None:
        self.until(lambda: False, duration_s)

    def __enter__(self) -> Keeper:
        return self

    def __exit__(self, *_: object) -> None:
        self.link.close()
