"""Measures the header of each message in bytes: typical, and largest possible.

``python -m benchmarks.bench_wire`` encodes each message of ``runtime.protocol.wire`` for a shipped workload. The header
of a request crosses the uplink with every payload, so it has a budget: 24 bytes if the payload stands alone, 30 if it
refers to an earlier one.
"""

from __future__ import annotations

import sys

from runtime.bundles.bundle import open_bundle
from runtime.protocol import wire
from runtime.protocol.operator_messages import Ask, Chunk, Fetch, Propose, Report, Rollback

BUDGET_BYTES, BUDGET_WITH_REFERENCE_BYTES = 24, 30
_DIGEST = 0x89ABCDEF
_MOST_US, _MOST_MS = wire.whole_us(float("inf")), wire.whole_ms(float("inf"))


def requests() -> list[tuple[wire.InferRequest, wire.InferRequest, int]]:
    """The typical and the largest request, and the budget: first without a reference, then with one."""
    typical = wire.InferRequest(3000, 1200, 150)
    largest = wire.InferRequest(wire.MAX_ID, (1 << 24) - 1, _MOST_MS)
    with_reference = wire.with_reference(typical, 2998, _DIGEST), wire.with_reference(largest, 1, _DIGEST)
    return [(typical, largest, BUDGET_BYTES), (*with_reference, BUDGET_WITH_REFERENCE_BYTES)]


def examples() -> list[tuple[wire.AnyMessage, wire.AnyMessage]]:
    """For each kind of message, a typical one and the largest one."""
    held = open_bundle("campus").held
    widest = wire.Held("w" * 64, "d" * 128, "d" * 128)
    closing, busy = wire.RejectReason.CLOSING, wire.RejectReason.BUSY
    return [
        (wire.Hello("camera-1", held), wire.Hello("d" * 64, widest)),
        (wire.Welcome("i" * 32, held, 1.0), wire.Welcome("i" * 64, widest, 1e6)),
        *((typical, largest) for typical, largest, _ in requests()),
        (wire.InferReply(3000, 400, 12_000), wire.InferReply(wire.MAX_ID, _MOST_US, _MOST_US)),
        (wire.Reject(3000, busy, "64 requests wait already"), wire.Reject(wire.MAX_ID, closing, "t" * 512, _MOST_US)),
        (wire.Ping(3000), wire.Ping(wire.MAX_ID)),
        (wire.Pong(3000), wire.Pong(wire.MAX_ID)),
        (wire.Bye(), wire.Bye()),
        (Ask(3000), Ask(wire.MAX_ID)),
        (Propose(3000), Propose(wire.MAX_ID)),
        (Chunk(3000, "d" * 64, 1 << 20), Chunk(wire.MAX_ID, "d" * 64, 4 << 30)),
        (Rollback(3000, "campus"), Rollback(wire.MAX_ID, "n" * 63)),
        (Fetch(3000, "campus", "d" * 64, 1 << 20), Fetch(wire.MAX_ID, "n" * 63, "d" * 64, 4 << 30)),
        (Report(3000), Report(wire.MAX_ID, 4 << 30)),
    ]


def header_bytes(message: wire.AnyMessage) -> int:
    return len(wire.encode(message)[0])


def main() -> int:
    print(f"{'header of':<24} {'typical':>8} {'largest':>8}   (bytes)")
    for typical, largest in examples():
        print(f"{_name(typical):<24} {header_bytes(typical):>8} {header_bytes(largest):>8}")
    kept = all(header_bytes(largest) <= budget for _, largest, budget in requests())
    budgets = f"{BUDGET_BYTES} bytes for a request, {BUDGET_WITH_REFERENCE_BYTES} with a reference"
    print(f"budget {budgets}: {'kept' if kept else 'MISSED'}")
    return 0 if kept else 1


def _name(message: wire.AnyMessage) -> str:
    refers = isinstance(message, wire.InferRequest) and message.reference_back > 0
    return f"{type(message).__name__}{', reference' if refers else ''}"


if __name__ == "__main__":
    sys.exit(main())
