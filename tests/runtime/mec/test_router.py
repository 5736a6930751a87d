"""The MEC's socket survives a peer whose message has no end."""

from __future__ import annotations

import contextlib
import resource
import socket
import threading
import time
from pathlib import Path

from support.waiting import PATIENCE_S

from benchmarks.support.hostile import frame, shake_hands
from runtime.link.dealer import Dealer
from runtime.link.router import Router

MOST_GROWTH_BYTES = 64 << 20


def resident_bytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()


def pour(port: int, stop: threading.Event) -> None:
    """A device's end by hand: one message whose parts have no end, again after every reset."""
    parts = frame(bytes(2000), flags=1) * 500
    while not stop.is_set():
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1.0) as victim:
            victim.settimeout(1.0)
            shake_hands(victim, b"DEALER")
            while not stop.is_set():
                victim.sendall(parts)


def test_a_message_without_end_costs_bounded_memory_and_others_are_served_again() -> None:
    full: list[float] = []
    router = Router(
        "tcp://127.0.0.1:*", most_growth_bytes=MOST_GROWTH_BYTES, on_full=lambda: full.append(time.monotonic())
    )
    port, stop = int(router.endpoint.rsplit(":", 1)[1]), threading.Event()
    attacker = threading.Thread(target=pour, args=(port, stop), daemon=True)
    router.settle()
    before, most, end_s = resident_bytes(), 0, time.monotonic() + PATIENCE_S
    attacker.start()
    while len(full) < 2 and time.monotonic() < end_s:
        router.wait(0.02)
        list(router.receive())
        most = max(most, resident_bytes())
    stop.set()
    attacker.join()
    assert len(full) >= 2
    assert most - before < 12 * MOST_GROWTH_BYTES
    good, heard = Dealer(router.endpoint), False
    while not heard and time.monotonic() < end_s + 5.0:
        good.send([b"hello"])
        router.wait(0.02)
        heard = any(bytes(parts[0]) == b"hello" for _, parts, *_ in router.receive() if parts)
    good.close()
    router.close()
    assert heard
