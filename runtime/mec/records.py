"""One record for each request that a MEC was asked: when it came, how long it took, and how it ended."""

from __future__ import annotations

from dataclasses import dataclass

from controller.records import Decision

SERVED = "served"
FAILED = "failed"


@dataclass(frozen=True, slots=True)
class RequestRecord:
    """What happened to one request: the source of a MEC's counts, one JSON line in its request log."""

    device: str  # as it calls itself in its greeting; empty when it was forgotten since
    peer: str  # the connection, in hexadecimal digits
    request_id: int  # the device's number for it
    row: int  # of the decision, as both sides number them
    decision: Decision | None  # None where the row is not one of the bundle's
    arrived_at: float | None  # Unix time in seconds, to the millisecond; None in simulated time
    queue_s: float  # from its arrival until it was taken up, or rejected
    mec_s: float  # decoding and tail; 0 when it was not run
    payload_bytes: int
    ending: str  # "served", or why not, a name of ``runtime.protocol.wire.RejectReason`` in small letters


@dataclass
class MecCounts:
    """What a MEC has done: a sink of its requests, and what it counts beside them."""

    served: int = 0
    rejected: int = 0  # every request that was not served
    failed: int = 0  # the MEC's own fault
    refused: int = 0  # devices that hold something else
    peer_faults: int = 0  # messages that broke the protocol

    def add(self, record: RequestRecord) -> None:
        """Count one request."""
        self.served += record.ending == SERVED
        self.rejected += record.ending != SERVED
        self.failed += record.ending == FAILED

    def close(self) -> None:
        """Counts stay readable."""
