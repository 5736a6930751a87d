"""Devices that always have requests waiting at a MEC: what it can do, not what a frame rate asks of it.

Each client keeps so many requests unanswered, and asks again with every answer. One line of JSON goes to standard
output at the end: the latencies of the time that was measured, which begins after a warm-up.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from typing import Any

import numpy as np

from benchmarks.support.crowd import Client, greet
from controller.records import Decision
from runtime.bundles.bundle import Bundle, open_pair
from runtime.inference.segments import Segments
from runtime.link.dealer import Dealer
from runtime.link.transport import wait_for

_BUDGET_S = 30.0


def payloads_of(segments: Segments, bundle: Bundle, decision: Decision, devices: range) -> list[bytes]:
    """What each device sends: the head of the decision, run on a picture of noise of its own. It stands alone."""
    pictures = (
        np.random.default_rng(device).integers(0, 256, bundle.frame_shape, dtype=np.uint8) for device in devices
    )
    return [segments.head(picture, decision).payload for picture in pictures]


def press(
    clients: list[Client], bundle: Bundle, row: int, in_flight: int, warm_s: float, seconds: float
) -> list[dict[str, Any]]:
    """Ask all the time; returns the rows of the requests that were answered after the warm-up."""
    greet(clients, bundle)
    start_s = time.perf_counter() + warm_s
    before = [0] * len(clients)
    while (now_s := time.perf_counter()) < start_s + seconds:
        for number, client in enumerate(clients):
            client.hear()
            if now_s < start_s:
                before[number] = len(client.rows)
            while len(client.sent_s) < in_flight:
                client.ask(row, _BUDGET_S, time.perf_counter())
        if not any(client.dealer.has_news for client in clients):
            wait_for([client.dealer.descriptor for client in clients], 0.02)
    return [row for client, first in zip(clients, before, strict=True) for row in client.rows[first:]]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, prog="python -m benchmarks.support.pressing")
    parser.add_argument("--mec", required=True)
    parser.add_argument("--workload", required=True)
    parser.add_argument("--row", type=int, required=True, help="of the decision space")
    parser.add_argument("--first", type=int, default=0, help="number of the first device")
    parser.add_argument("--devices", type=int, required=True)
    parser.add_argument("--in-flight", type=int, required=True, help="requests that each keeps unanswered")
    parser.add_argument("--warm-s", type=float, required=True)
    parser.add_argument("--seconds", type=float, required=True)
    o = parser.parse_args()
    bundle, work = open_pair(o.workload)
    decision, devices = bundle.space.decisions[o.row], range(o.first, o.first + o.devices)
    payloads = payloads_of(Segments(bundle, work), bundle, decision, devices)
    clients = [Client(n, 1.0, Dealer(o.mec), payload) for n, payload in zip(devices, payloads, strict=True)]
    rows = press(clients, bundle, o.row, o.in_flight, o.warm_s, o.seconds)
    for client in clients:
        client.dealer.close()
    json.dump(summary(rows, o.seconds), sys.stdout)
    return 0


def summary(rows: list[dict[str, Any]], seconds: float) -> dict[str, Any]:
    """Latencies in milliseconds of the served requests, and how many were not."""
    served = [row["latency_ms"] for row in rows if row["ending"] == "served"]
    return {"latencies_ms": served, "rejected": len(rows) - len(served), "seconds": seconds}


if __name__ == "__main__":
    sys.exit(main())
