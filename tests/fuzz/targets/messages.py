"""Messages of both sides, of this version and of old ones, as the sessions' targets begin with them."""

from __future__ import annotations

from runtime.protocol import wire
from runtime.protocol.old_wire import OLD_VERSIONS, old_hello, old_reject
from tests.fuzz.targets.cut import sized

HELD = wire.Held("campus", "d1" * 32, "e1" * 32)
OTHER = wire.Held("garments", "d2" * 32, "e2" * 32)
OF_DEVICE: list[tuple[wire.AnyMessage, bytes]] = [
    (wire.Hello("camera", HELD), b""),
    (wire.Hello("camera", OTHER), b""),
    (wire.InferRequest(1, 3, 100), b"payload"),
    (wire.with_reference(wire.InferRequest(2, 3, 100), 1, 77), b"payload"),
    (wire.Ping(3), b""),
    (wire.Ping(4), bytes(128)),
    (wire.Bye(), b""),
]
OF_MEC: list[tuple[wire.AnyMessage, bytes]] = [
    (wire.Welcome("mec-1", HELD, 4.0), b""),
    (wire.Welcome("mec-2", OTHER, 4.0), b""),
    (wire.InferReply(1, 10, 1000), bytes(40)),
    *((wire.Reject(1, reason, "no", 5), b"") for reason in wire.RejectReason),
    (wire.Pong(2), b""),
    (wire.Bye(), b""),
]
OLD = [old_hello(version) for version in OLD_VERSIONS] + [old_reject(version, "no") for version in OLD_VERSIONS]


def encoded(message: wire.AnyMessage, buffer: bytes) -> bytes:
    """A message as the sessions' targets read it: header and buffer, each with its size."""
    header, *rest = wire.encode(message, buffer)
    return sized(bytes(header)) + sized(bytes(rest[0]) if rest else b"")
