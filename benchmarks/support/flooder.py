"""A device that floods a MEC as fast as it can until its standard input ends: with requests, garbage or large payloads.

It connects again whenever it is cut off, as ZeroMQ does by itself. Its own process has the lowest priority, so that
what others lose is the MEC's doing and not that of a shared core.
"""

from __future__ import annotations

import argparse
import os
import sys
import threading

import zmq

from runtime.bundles.bundle import open_bundle
from runtime.protocol import wire

KINDS = ("requests", "garbage", "large")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, prog="python -m benchmarks.support.flooder")
    parser.add_argument("kind", choices=KINDS)
    parser.add_argument("--mec", required=True)
    parser.add_argument("--bundle", required=True)
    parser.add_argument("--row", type=int, required=True)
    o = parser.parse_args()
    os.nice(19)
    held = open_bundle(o.bundle).held
    ended = threading.Event()
    threading.Thread(target=lambda: (sys.stdin.read(), ended.set()), daemon=True).start()
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    socket = context.socket(zmq.DEALER)
    socket.set(zmq.LINGER, 0)
    socket.set(zmq.SNDTIMEO, 100)
    socket.set(zmq.RCVHWM, 1)
    socket.connect(o.mec)
    hello = wire.encode(wire.Hello("flooder", held))
    request = wire.encode(wire.infer_request(1, o.row, 60.0), bytes(784))
    large = wire.encode(wire.infer_request(1, o.row, 60.0), bytes(wire.MAX_PART_BYTES))
    flood = {"requests": request, "garbage": [b"garbage", bytes(100)], "large": large}[o.kind]
    sent = 0
    while not ended.is_set():
        try:
            if sent % 64 == 0:  # after every cut the MEC knows it no longer
                socket.send_multipart(hello)
            socket.send_multipart(flood, copy=False)
            sent += 1
        except zmq.Again:
            continue
    print(sent)
    return 0


if __name__ == "__main__":
    sys.exit(main())
