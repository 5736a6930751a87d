"""A crowd of devices in one process: light clients with real sockets, each with its own frames and frame rate.

Unlike a device, a client decides nothing and never waits: it sends a full offload at every capture, whatever the MEC
says. So it shows what a MEC does when more is asked than it can do. One line of JSON per request goes to standard
output at the end.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
import zlib
from dataclasses import dataclass, field

import numpy as np

from controller.errors import RemoteProtocolError
from runtime.bundles.bundle import Bundle, open_bundle
from runtime.link.dealer import Dealer
from runtime.link.transport import wait_for
from runtime.protocol import wire

#: What is still unanswered so long after the last request was sent is lost.
_LINGER_S = 1.0
_PING_EVERY_S = 0.5
_PATIENCE_S = 60.0


def payload_of(bundle: Bundle, row: int, device: int) -> bytes:
    """What a device sends of a row whose payload is the raw image: noise of its own."""
    d = bundle.space.decisions[row]
    shape = bundle.payload_shape(d.model, d.resolution_px, d.partition_point)
    return np.random.default_rng(device).integers(0, 256, shape, dtype=np.uint8).tobytes()


@dataclass
class Client:
    """One device: its socket, what it waits for, and what became of its requests."""

    number: int
    period_s: float
    dealer: Dealer
    payload: bytes
    next_s: float = 0.0
    ping_s: float = 0.0
    last_id: int = 0
    welcomed: bool = False
    sent_s: dict[int, float] = field(default_factory=dict)
    rows: list[dict[str, object]] = field(default_factory=list)
    outputs: list[bytes] | None = None  # a list: keep the outputs of every answer in it

    def send(self, message: wire.AnyMessage, buffer: bytes = b"") -> None:
        self.dealer.send(wire.encode(message, buffer))

    def ask(self, row: int, budget_s: float, now_s: float) -> None:
        self.last_id += 1
        self.sent_s[self.last_id] = now_s
        self.send(wire.infer_request(self.last_id, row, budget_s), self.payload)

    def hear(self) -> None:
        for parts in self.dealer.receive():
            try:
                message, buffer = wire.decode(parts)
            except RemoteProtocolError:
                continue
            match message:
                case wire.Welcome():
                    self.welcomed = True
                case wire.InferReply():
                    if self.outputs is not None:
                        self.outputs.append(bytes(buffer))
                    self._ended(message.request_id, "served", message.queue_ms, zlib.crc32(buffer))
                case wire.Reject():
                    self._ended(message.request_id, str(message.reason), message.queue_ms)

    def _ended(self, request_id: int, ending: str, queue_ms: float = 0.0, digest: int = 0) -> None:
        if (sent_s := self.sent_s.pop(request_id, None)) is not None:
            latency_ms = (time.perf_counter() - sent_s) * 1e3
            row = {"device": self.number, "ending": ending, "latency_ms": round(latency_ms, 3)}
            self.rows.append(row | {"queue_ms": round(queue_ms, 3), "digest": digest})

    def give_up(self) -> None:
        for request_id in list(self.sent_s):
            self._ended(request_id, "lost")


def play(clients: list[Client], bundle: Bundle, row: int, budget_s: float, seconds: float) -> None:
    """Greet, then ask for so long, then wait for the last answers."""
    greet(clients, bundle)
    start_s = time.perf_counter()
    rng = np.random.default_rng(clients[0].number)
    for client in clients:
        client.next_s = start_s + rng.uniform(0, client.period_s)
    end_s = start_s + seconds
    while (now_s := time.perf_counter()) < end_s + _LINGER_S:
        for client in clients:
            client.hear()
            if client.next_s <= now_s < end_s:
                client.ask(row, budget_s, now_s)
                client.next_s += client.period_s
            if client.ping_s <= now_s:
                client.send(wire.Ping(wire.MAX_ID))
                client.ping_s = now_s + _PING_EVERY_S
        due_s = min(client.next_s for client in clients)
        if not any(client.dealer.has_news for client in clients):
            wait_for([client.dealer.descriptor for client in clients], min(max(due_s - time.perf_counter(), 0), 0.02))
    for client in clients:
        client.give_up()


def greet(clients: list[Client], bundle: Bundle) -> None:
    """Say hello until every client is welcomed; SystemExit if one is not."""
    limit_s = time.perf_counter() + _PATIENCE_S
    while not all(client.welcomed for client in clients):
        if time.perf_counter() > limit_s:
            raise SystemExit("a client was not welcomed")
        for client in clients:
            if not client.welcomed:
                client.send(wire.Hello(f"crowd-{client.number}", bundle.held))
        time.sleep(0.1)
        for client in clients:
            client.hear()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, prog="python -m benchmarks.support.crowd")
    parser.add_argument("--mec", required=True)
    parser.add_argument("--bundle", required=True)
    parser.add_argument("--row", type=int, required=True, help="of the decision space; its payload is the raw image")
    parser.add_argument("--first", type=int, default=0, help="number of the first device")
    parser.add_argument("--fps", type=float, nargs="+", required=True, help="of each device")
    parser.add_argument("--budget-ms", type=float, required=True)
    parser.add_argument("--seconds", type=float, required=True)
    o = parser.parse_args()
    bundle = open_bundle(o.bundle)
    clients = [
        Client(o.first + n, 1 / fps, Dealer(o.mec), payload_of(bundle, o.row, o.first + n))
        for n, fps in enumerate(o.fps)
    ]
    play(clients, bundle, o.row, o.budget_ms / 1e3, o.seconds)
    for client in clients:
        client.dealer.close()
        for line in client.rows:
            sys.stdout.write(json.dumps(line) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
