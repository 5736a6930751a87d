"""Measures the header of each message in bytes: typical, and largest possible.

``python -m benchmarks.bench_wire`` encodes each message of ``runtime.protocol.wire`` for a shipped workload. The header
of a request crosses the uplink with every payload, so it has a budget of 24 bytes.
"""

from __future__ import annotations

import sys

from runtime.bundles.bundle import open_bundle
from runtime.protocol import wire

BUDGET_BYTES = 24
_MOST_US, _MOST_MS = wire.whole_us(float("inf")), wire.whole_ms(float("inf"))


def examples() -> list[tuple[wire.AnyMessage, wire.AnyMessage]]:
    """For each kind of message, a typical one and the largest one."""
    held = open_bundle("campus").held
    widest = wire.Held("w" * 64, "d" * 128, "d" * 128)
    closing, busy = wire.RejectReason.CLOSING, wire.RejectReason.BUSY
    return [
        (wire.Hello("camera-1", held), wire.Hello("d" * 64, widest)),
        (wire.Welcome("i" * 32, held, 1.0), wire.Welcome("i" * 64, widest, 1e6)),
        (wire.InferRequest(3000, 1200, 150), wire.InferRequest(wire.MAX_ID, (1 << 24) - 1, _MOST_MS)),
        (wire.InferReply(3000, 400, 12_000), wire.InferReply(wire.MAX_ID, _MOST_US, _MOST_US)),
        (wire.Reject(3000, busy, "64 requests wait already"), wire.Reject(wire.MAX_ID, closing, "t" * 512, _MOST_US)),
        (wire.Ping(3000), wire.Ping(wire.MAX_ID)),
        (wire.Pong(3000), wire.Pong(wire.MAX_ID)),
        (wire.Bye(), wire.Bye()),
    ]


def header_bytes(message: wire.AnyMessage) -> int:
    return len(wire.encode(message)[0])


def main() -> int:
    print(f"{'header of':<14} {'typical':>8} {'largest':>8}   (bytes)")
    for typical, largest in examples():
        print(f"{type(typical).__name__:<14} {header_bytes(typical):>8} {header_bytes(largest):>8}")
    kept = all(header_bytes(most) <= BUDGET_BYTES for _, most in examples() if isinstance(most, wire.InferRequest))
    print(f"budget {BUDGET_BYTES} bytes for a request: {'kept' if kept else 'MISSED'}")
    return 0 if kept else 1


if __name__ == "__main__":
    sys.exit(main())
