"""Counts the packets of real messages, and compares their bytes with ``controller.packets``.

``python -m benchmarks.bench_packets`` (as root, on Linux with ``ip`` and ``tc``) connects a device and a MEC with a
pair of interfaces, the MEC's in a network namespace: 1,500 bytes per packet, no offloads. The device sends pings, and
requests that name a reference, of several sizes, ten a second, the MEC answers each after ``--answer-ms`` with 1 kB,
and everything that leaves the device is captured. With ``--uplink-kbps`` the kernel's token bucket limits the device's
interface.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import random
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass

from controller.packets import ACKNOWLEDGEMENT_BYTES, ping_bytes, wire_bytes
from runtime.link.dealer import Dealer
from runtime.link.router import Router
from runtime.link.transport import wait_for
from runtime.protocol import wire

PORT = 5599
SPACE, OURS, THEIRS = f"mecpilot{os.getpid()}", f"mp{os.getpid() % 100000}a", f"mp{os.getpid() % 100000}b"
INSIDE = ("ip", "netns", "exec", SPACE)
HERE, THERE = "10.213.9.1", "10.213.9.2"
PAYLOADS = (48, 88, 203, 255, 256, 1300, 2300, 7800, 32_000)
_ANSWER = bytes(1000)
_ETH_P_ALL, _ETH_P_IP = 0x0003, 0x0800


@dataclass
class Packets:
    """IP bytes that left the device: in packets with data, and acknowledgements alone."""

    data_bytes: int = 0
    acknowledgements: int = 0


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--messages", type=int, default=50, help="messages of each size")
    parser.add_argument("--answer-ms", type=float, default=30.0, help="from the arrival of a message to its answer")
    parser.add_argument("--period-ms", type=float, default=100.0, help="mean time between messages")
    parser.add_argument("--uplink-kbps", type=float, default=0.0, help="rate of the device's interface; 0: unlimited")
    parser.add_argument("--mec", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.mec:
        return answer_everything(options.answer_ms / 1e3)
    with network(options.uplink_kbps), mec(options.answer_ms):
        report(options)
    return 0


def report(options: argparse.Namespace) -> None:
    print(f"{'message':<16} {'measured':>9} {'computed':>9}   acknowledgements alone, per answer")
    kinds = [("ping", 0), ("ping", 1024), *(("request", size) for size in PAYLOADS)]
    for kind, size in kinds:
        counted = count(kind, size, options.messages, options.period_ms / 1e3)
        computed = (ping_bytes(size) if kind == "ping" else wire_bytes(size)) - ACKNOWLEDGEMENT_BYTES
        per_message = counted.data_bytes / options.messages
        alone = counted.acknowledgements / options.messages
        print(f"{kind:<8} {size:>7} {per_message:>9.1f} {computed:>9.1f}   {alone:.2f}")


def count(kind: str, size: int, messages: int, period_s: float) -> Packets:
    """What leaves the device for so many messages and their answers, its handshake aside."""
    rng = random.Random(0)
    dealer = Dealer(f"tcp://{THERE}:{PORT}")
    try:
        until = time.perf_counter() + 5.0
        while not dealer.connected and time.perf_counter() < until:
            dealer.wait(0.05)
        time.sleep(0.3)
        packets, due_s = Packets(), time.perf_counter()
        with socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, socket.htons(_ETH_P_ALL)) as capture:
            capture.setblocking(False)
            for number in range(messages):
                dealer.send(wire.encode(typical(kind, 3000 + number), bytes(size)))  # ids as after some minutes
                # Periods vary, as those of a device do.
                due_s += period_s * rng.uniform(0.5, 1.5)
                follow(dealer, capture, packets, due_s)
            follow(dealer, capture, packets, due_s + 1.0)
        return packets
    finally:
        dealer.close()


def typical(kind: str, message_id: int) -> wire.InferRequest | wire.Ping:
    """A ping, or the typical request of ``benchmarks.bench_wire`` that refers to the one sent before it."""
    if kind == "ping":
        return wire.Ping(message_id)
    return wire.with_reference(wire.InferRequest(message_id, 1200, 150), message_id - 1, 0x89ABCDEF)


def follow(dealer: Dealer, capture: socket.socket, packets: Packets, until_s: float) -> None:
    """Receive answers and count packets until then."""
    while (left_s := until_s - time.perf_counter()) > 0:
        wait_for([dealer.descriptor, capture.fileno()], min(left_s, 0.01))
        for _ in dealer.receive():
            pass
        with contextlib.suppress(BlockingIOError):
            while True:
                packet, where = capture.recvfrom(1 << 16)
                if where[1] == _ETH_P_IP and where[2] == socket.PACKET_OUTGOING:
                    add(packets, packet)


def add(packets: Packets, packet: bytes) -> None:
    """Count an IP packet of ours."""
    ip_bytes = (packet[0] & 15) * 4
    total = struct.unpack_from(">H", packet, 2)[0]
    tcp = packet[ip_bytes:]
    data = total - ip_bytes - (tcp[12] >> 4) * 4
    if packet[9] != socket.IPPROTO_TCP or struct.unpack_from(">H", tcp, 2)[0] != PORT:
        return
    if data and is_heartbeat(tcp[(tcp[12] >> 4) * 4 :]):
        return
    packets.data_bytes += total if data else 0
    packets.acknowledgements += not data


def is_heartbeat(stream: bytes) -> bool:
    """Whether a segment holds nothing but a command of ZMTP, which its first flag says."""
    return bool(stream[0] & 4) and len(stream) < 64


def answer_everything(after_s: float) -> int:
    """The MEC: answers each message after a while, until it is killed."""
    router = Router(f"tcp://*:{PORT}")
    print("ready", flush=True)
    due: list[tuple[float, bytes]] = []
    while True:
        wait_for([router.descriptor], max(min((at_s for at_s, _ in due), default=1e9) - time.perf_counter(), 0.0))
        due += [(time.perf_counter() + after_s, peer) for peer, *_ in router.receive()]
        for at_s, peer in [entry for entry in due if entry[0] <= time.perf_counter()]:
            router.send(peer, wire.encode(wire.InferReply(3000, 100, 10_000), _ANSWER))
            due.remove((at_s, peer))


@contextlib.contextmanager
def network(uplink_kbps: float) -> Iterator[None]:
    """An interface here and one in a namespace, where the MEC is."""
    run("ip", "netns", "add", SPACE)
    try:
        run("ip", "link", "add", OURS, "mtu", "1500", "type", "veth", "peer", "name", THEIRS, "netns", SPACE)
        run("ip", "addr", "add", f"{HERE}/24", "dev", OURS)
        run("ip", "link", "set", OURS, "gso_max_segs", "1")
        run("ip", "link", "set", OURS, "up")
        if uplink_kbps:
            rate = ("rate", f"{uplink_kbps}kbit", "burst", "1600", "latency", "10s")
            run("tc", "qdisc", "add", "dev", OURS, "root", "tbf", *rate)
        run(*INSIDE, "ip", "addr", "add", f"{THERE}/24", "dev", THEIRS)
        run(*INSIDE, "ip", "link", "set", THEIRS, "up")
        yield
    finally:
        subprocess.run(["ip", "link", "del", OURS], check=False, capture_output=True)
        run("ip", "netns", "del", SPACE)


@contextlib.contextmanager
def mec(answer_ms: float) -> Iterator[None]:
    words = [*INSIDE, sys.executable, "-m", "benchmarks.bench_packets", "--mec", "--answer-ms", str(answer_ms)]
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            process.stdout.readline()
            yield
        finally:
            process.kill()


def run(*words: str) -> None:
    subprocess.run(words, check=True, capture_output=True)


if __name__ == "__main__":
    sys.exit(main())
