"""The record of a request at the MEC (arrival, times, ending), and the counts over all requests."""

from __future__ import annotations

from dataclasses import dataclass

from controller.records import Decision

SERVED = "served"
FAILED = "failed"


@dataclass(frozen=True, slots=True)
class RequestRecord:
    """One request and its ending: a line of the request log, and the source of the counts."""

    device: str  # its user, or without keys the name in its Hello; empty if the session was forgotten
    peer: str  # the connection, in hexadecimal digits
    request_id: int  # given by the device
    row: int  # of the decision in the decision space
    decision: Decision | None  # None if the bundle has no such row
    arrived_at: float | None  # Unix time in seconds, to the millisecond; None in simulated time
    queue_s: float  # from arrival to the start of computing, or to the rejection
    mec_s: float  # decoding and tail, of all that were computed together; 0 if it was not run
    payload_bytes: int
    ending: str  # "served", or the reason of the rejection: a ``runtime.protocol.wire.RejectReason`` in lower case
    cached: bool = False  # served with the outputs of an equal request
    together: int = 0  # served requests: how many were computed together, with this one


@dataclass
class MecCounts:
    """Counts of a MEC. A sink of request records; the last four are set by the loop."""

    served: int = 0
    cached: int = 0  # of these, with the outputs of an equal request
    batched: int = 0  # of these, computed together with others
    rejected: int = 0  # every request that was not served
    failed: int = 0  # errors of the MEC itself
    refused: int = 0  # handshakes of devices with another bundle or protocol
    peer_faults: int = 0  # messages that broke the protocol
    shed: int = 0  # messages of devices that sent more than they may
    cut_off: int = 0  # their connections that were closed for it

    def add(self, record: RequestRecord) -> None:
        """Count one request."""
        self.served += record.ending == SERVED
        self.cached += record.cached
        self.batched += record.together > 1
        self.rejected += record.ending != SERVED
        self.failed += record.ending == FAILED

    def close(self) -> None:
        """Nothing to do: the counts stay available."""
