"""A relay between devices and a MEC that corrupts, delays, renames or repeats replies."""

from __future__ import annotations

import heapq
import itertools
import threading
import time
from collections.abc import Callable

import zmq

from controller.errors import RemoteProtocolError
from controller.timeline import GIVE_UP_DEADLINES
from runtime.link.dealer import Dealer
from runtime.link.router import Router
from runtime.link.transport import Parts
from runtime.protocol import wire

#: Takes outputs and the seconds until the frame's deadline; returns the outputs to deliver and the delay in seconds.
Change = Callable[[bytes, float], tuple[bytes, float]]
#: Takes a reply and its outputs; returns the replies to deliver in its place.
Tell = Callable[[wire.InferReply, bytes], list[tuple[wire.InferReply, bytes]]]
_LOOK_EVERY_S = 0.002


def unchanged(outputs: bytes, _: float) -> tuple[bytes, float]:
    """A change that changes nothing."""
    return outputs, 0.0


def honest(reply: wire.InferReply, outputs: bytes) -> list[tuple[wire.InferReply, bytes]]:
    """Tells what the MEC says."""
    return [(reply, outputs)]


class Relay:
    """Owns a router for the devices and, for each of them, a connection to the MEC."""

    def __init__(self, mec: str, deadline_s: float, change: Change = unchanged, tell: Tell = honest) -> None:
        self._mec, self._deadline_s, self._change, self._tell = mec, deadline_s, change, tell
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self._router = Router("tcp://127.0.0.1:*")
        self._dealers: dict[bytes, Dealer] = {}
        self._deadlines_s: dict[tuple[bytes, int], float] = {}
        self._waiting: list[tuple[float, int, bytes, Parts]] = []  # until when, order, to whom, what
        self._order = itertools.count()
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    @property
    def endpoint(self) -> str:
        return self._router.endpoint

    def __enter__(self) -> Relay:
        return self

    def __exit__(self, *_: object) -> None:
        self._stopping.set()
        self._thread.join()
        for end in (self._router, *self._dealers.values()):
            end.close()
        self._context.term()

    def _serve(self) -> None:
        while not self._stopping.is_set():
            self._router.wait(_LOOK_EVERY_S)
            for peer, parts, *_ in self._router.receive():
                self._up(peer, parts)
            for peer, dealer in self._dealers.items():
                for parts in dealer.receive():
                    self._down(peer, parts)
            while self._waiting and self._waiting[0][0] <= time.perf_counter():
                _, _, peer, parts = heapq.heappop(self._waiting)
                self._router.send(peer, parts)

    def _up(self, peer: bytes, parts: Parts) -> None:
        if peer not in self._dealers:
            self._dealers[peer] = Dealer(self._mec, self._context)
        match _message(parts):
            case wire.InferRequest(request_id, _, budget_ms):  # counts to when the device gives up
                left_s = budget_ms / 1e3 - (GIVE_UP_DEADLINES - 1.0) * self._deadline_s
                self._deadlines_s[peer, request_id] = time.perf_counter() + left_s
        self._dealers[peer].send([bytes(part) for part in parts])

    def _down(self, peer: bytes, parts: Parts) -> None:
        at_s, message = time.perf_counter(), _message(parts)
        if not isinstance(message, wire.InferReply):
            self._wait(at_s, peer, [bytes(part) for part in parts])
            return
        deadline_s = self._deadlines_s.pop((peer, message.request_id), at_s)
        outputs, wait_s = self._change(bytes(parts[1]), deadline_s - at_s)
        for told in self._tell(message, outputs):
            self._wait(at_s + wait_s, peer, [bytes(part) for part in wire.encode(*told)])

    def _wait(self, until_s: float, peer: bytes, parts: Parts) -> None:
        heapq.heappush(self._waiting, (until_s, next(self._order), peer, parts))


def _message(parts: Parts) -> wire.AnyMessage | None:
    try:
        return wire.decode(parts)[0]
    except RemoteProtocolError:  # a hello of an old version
        return None
