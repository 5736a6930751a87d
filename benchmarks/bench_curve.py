"""Measures what encryption costs: round trips, processor time and bytes of a request, and of a handshake.

``python -m benchmarks.bench_curve`` starts one process with two echoing MECs on loopback, one plain and one with CURVE,
and sends requests to them in turn, so that both see the same machine. Bytes are counted by a port in between, in runs
of their own.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import select
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from runtime.link.dealer import Dealer
from runtime.link.endpoint import parse_endpoint
from runtime.link.router import Router
from runtime.link.transport import wait_for
from runtime.protocol import wire
from runtime.security.allow_list import DEFAULT_NAME, AllowList, allow
from runtime.security.curve import DeviceKeys, MecKeys
from runtime.security.key_files import read_pair, write_pair

PAYLOADS = (200, 10_000, 70_000)
#: As large as what the MEC answers for a picture of campus.
_ANSWER = bytes(1000)
_PATIENCE_S = 10.0
_REQUEST = wire.with_reference(wire.InferRequest(3000, 1200, 150), 2999, 0x89ABCDEF)
_REPLY = wire.InferReply(3000, 100, 10_000)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--requests", type=int, default=2000, help="of each size, over each kind of connection")
    parser.add_argument("--handshakes", type=int, default=200)
    parser.add_argument("--keys", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.keys:
        return echo(options.keys)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        mec, device = write_pair(folder, "mec"), write_pair(folder, "device")
        allow(folder / DEFAULT_NAME, "device", device.public, None)
        with echoing(folder) as (process, plain, curve):
            kinds = {"plain": Kind(plain, None), "curve": Kind(curve, DeviceKeys(device, mec.public))}
            report_requests(kinds, process, options.requests)
            report_bytes(kinds)
            report_handshakes(kinds, options.handshakes)
    return 0


@dataclass(frozen=True)
class Kind:
    """A MEC and how to talk to it."""

    endpoint: str
    keys: DeviceKeys | None


# Round trips -------------------------------------------------------------------------------------------------


def report_requests(kinds: dict[str, Kind], process: subprocess.Popen[bytes], requests: int) -> None:
    print(f"{'payload':>8} {'':<6} {'p50 us':>8} {'p95 us':>8} {'device us':>10} {'MEC us':>8}   per request")
    for size in PAYLOADS:
        rtt_s: dict[str, list[float]] = {name: [] for name in kinds}
        device_s, mec_s = dict.fromkeys(kinds, 0.0), dict.fromkeys(kinds, 0.0)
        with contextlib.ExitStack() as stack:
            dealers = {name: stack.enter_context(connected(kind)) for name, kind in kinds.items()}
            for turn in range(-1, 20):  # the first turn warms up
                for name, dealer in dealers.items():
                    before = time.process_time(), processor_s(process.pid)
                    took_s = [round_trip(dealer, size) for _ in range(requests // 20)]
                    if turn >= 0:
                        rtt_s[name] += took_s
                        device_s[name] += time.process_time() - before[0]
                        mec_s[name] += processor_s(process.pid) - before[1]
        for name in kinds:
            p50, p95 = np.percentile(rtt_s[name], [50, 95]) * 1e6
            each = [total[name] / len(rtt_s[name]) * 1e6 for total in (device_s, mec_s)]
            print(f"{size:>8} {name:<6} {p50:>8.0f} {p95:>8.0f} {each[0]:>10.0f} {each[1]:>8.0f}")


def round_trip(dealer: Dealer, size: int) -> float:
    """Seconds from a request to its answer."""
    began_s = time.perf_counter()
    dealer.send(wire.encode(_REQUEST, bytes(size)))
    while not any(True for _ in dealer.receive()):
        dealer.wait(0.1)
        if time.perf_counter() > began_s + _PATIENCE_S:
            raise SystemExit("no answer")
    return time.perf_counter() - began_s


@contextlib.contextmanager
def connected(kind: Kind, endpoint: str = "") -> Iterator[Dealer]:
    dealer = Dealer(endpoint or kind.endpoint, keys=kind.keys)
    try:
        end_s = time.perf_counter() + _PATIENCE_S
        while not dealer.connected and time.perf_counter() < end_s:
            dealer.wait(0.05)
        if not dealer.connected:
            raise SystemExit("no connection")
        yield dealer
    finally:
        dealer.close(linger_ms=0)


def processor_s(pid: int) -> float:
    """Processor time of a process and its threads, which its ZeroMQ threads dominate."""
    return sum(int(path.read_text().split()[0]) for path in Path(f"/proc/{pid}/task").glob("*/schedstat")) / 1e9


# Bytes -------------------------------------------------------------------------------------------------------


def report_bytes(kinds: dict[str, Kind]) -> None:
    heads = ("plain up", "curve up", "more", "plain down", "curve down", "more")
    print(f"\n{'payload':>8}", *(f"{head:>10}" for head in heads))
    for size in (0, 48, 222, 223, 255, 256, *PAYLOADS):
        plain, curve = (stream_bytes(kind, size) for kind in kinds.values())
        up, down = curve[0] - plain[0], curve[1] - plain[1]
        print(f"{size:>8}", *(f"{count:>10}" for count in (plain[0], curve[0], up, plain[1], curve[1], down)))


def stream_bytes(kind: Kind, size: int) -> tuple[int, int]:
    """Bytes of TCP's stream for one request and its answer: up and down."""
    with Counter(kind.endpoint) as counter, connected(kind, counter.endpoint) as dealer:
        round_trip(dealer, size)
        before = counter.quiet()
        round_trip(dealer, size)
        after = counter.quiet()
    return after[0] - before[0], after[1] - before[1]


@dataclass
class Counter:
    """A port that passes one connection on, and counts the bytes of both directions."""

    target: str
    up: int = 0
    down: int = 0
    endpoint: str = ""
    _server: socket.socket = field(default_factory=lambda: socket.create_server(("127.0.0.1", 0)))

    def __enter__(self) -> Counter:
        self.endpoint = f"tcp://127.0.0.1:{self._server.getsockname()[1]}"
        threading.Thread(target=self._serve, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.close()

    def quiet(self) -> tuple[int, int]:
        """The counts once nothing has passed for a while."""
        seen = -1
        while self.up + self.down != seen:
            seen = self.up + self.down
            time.sleep(0.1)
        return self.up, self.down

    def _serve(self) -> None:
        with contextlib.suppress(OSError):
            device, _ = self._server.accept()
            where = parse_endpoint(self.target)
            with device, socket.create_connection((where.host, where.port)) as mec:
                while True:
                    for ready in select.select([device, mec], [], [])[0]:
                        if not (data := ready.recv(1 << 17)):
                            return
                        self.up += len(data) if ready is device else 0
                        self.down += len(data) if ready is mec else 0
                        (mec if ready is device else device).sendall(data)


# Handshakes --------------------------------------------------------------------------------------------------


def report_handshakes(kinds: dict[str, Kind], handshakes: int) -> None:
    print(f"\n{'handshake':<9} {'p50 us':>8} {'p95 us':>8} {'bytes up':>9} {'down':>6}")
    for name, kind in kinds.items():
        took_s = []
        for _ in range(handshakes):
            began_s = time.perf_counter()
            with connected(kind):
                took_s.append(time.perf_counter() - began_s)
        with Counter(kind.endpoint) as counter, connected(kind, counter.endpoint):
            up, down = counter.quiet()
        p50, p95 = np.percentile(took_s, [50, 95]) * 1e6
        print(f"{name:<9} {p50:>8.0f} {p95:>8.0f} {up:>9} {down:>6}")


# The MECs ----------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def echoing(folder: Path) -> Iterator[tuple[subprocess.Popen[bytes], str, str]]:
    """A process with a plain MEC and one with CURVE, and their endpoints."""
    command = [sys.executable, "-m", "benchmarks.bench_curve", "--keys", str(folder)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, env=os.environ) as process:
        assert process.stdout is not None
        plain, curve = process.stdout.readline().decode().split()
        try:
            yield process, plain, curve
        finally:
            process.kill()


def echo(folder: Path) -> int:
    """Answer every request at once, until the process is killed."""
    keys = MecKeys(read_pair(folder / "mec.key"), AllowList(folder / DEFAULT_NAME, print))
    routers = Router("tcp://127.0.0.1:*"), Router("tcp://127.0.0.1:*", keys=keys)
    print(*(router.endpoint for router in routers), flush=True)
    reply = wire.encode(_REPLY, _ANSWER)
    while True:
        if not any(router.has_news for router in routers):
            wait_for([router.descriptor for router in routers], 0.1)
        for router in routers:
            for message in router.receive():
                router.send(message.peer, reply)


if __name__ == "__main__":
    sys.exit(main())
