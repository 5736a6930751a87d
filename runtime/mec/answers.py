"""What a MEC sends back for each request: a reply or a rejection, and the record of it."""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np

from controller.errors import RemoteProtocolError
from runtime.codecs.streams import UnknownReferenceError
from runtime.link.link import Clock
from runtime.link.router import Router
from runtime.mec.bundles import Bundles
from runtime.mec.records import SERVED, RequestRecord
from runtime.mec.served import Ran
from runtime.observe.sinks import Sinks
from runtime.protocol import wire
from runtime.protocol.mec_session import Admit
from runtime.protocol.wire import RejectReason


class Answers:
    """Owns the names of devices, and the sinks of request records."""

    def __init__(
        self,
        router: Router,
        bundles: Bundles,
        sinks: Sinks[RequestRecord],
        clock: Clock,
        log: Callable[[str], None],
    ) -> None:
        self._router, self._bundles, self._sinks = router, bundles, sinks
        self._clock, self._log = clock, log
        self._epoch_s = time.time() - clock() if clock is time.perf_counter else None
        self.names: dict[bytes, str] = {}  # peer -> the name that its key has proved, else that in its Hello

    def answer(self, job: Admit, found: Ran | Exception, began_s: float, ended_s: float, together: int) -> None:
        """Send what became of a request that was computed between two times, with others or alone."""
        match found:
            case Ran():
                self._reply(job, found, began_s, ended_s, together)
            case UnknownReferenceError():
                self.reject(job, RejectReason.REFERENCE, str(found))
            case RemoteProtocolError():
                self.reject(job, RejectReason.PAYLOAD, str(found))
            case _:
                self.log_failure(found)
                self.reject(job, RejectReason.FAILED, type(found).__name__)

    def _reply(self, job: Admit, ran: Ran, began_s: float, ended_s: float, together: int) -> None:
        queue_s, mec_s = began_s - job.arrived_s, ended_s - began_s
        # A reply that was known says nothing about how fast this MEC computes; it has waited for what was computed
        # together with it.
        times_us = (queue_s + mec_s, 0.0) if ran.cached else (queue_s, max(mec_s, 1e-6))
        reply = wire.InferReply(job.request.request_id, *map(wire.whole_us, times_us))
        self._router.send(job.peer, wire.encode(reply, np.ascontiguousarray(ran.outputs).data.cast("B")))
        self._record(job, queue_s, mec_s, SERVED, cached=ran.cached, together=together)

    def reject(self, job: Admit, reason: RejectReason, text: str, waited_s: float = 0.0) -> None:
        """Reject a request that has waited in the queue for so long."""
        reject = wire.Reject(job.request.request_id, reason, wire.plain(text), wire.whole_us(waited_s))
        self._router.send(job.peer, wire.encode(reject))
        self._record(job, max(self._clock() - job.arrived_s, 0.0), 0.0, str(reason))

    def withdrawn(self, job: Admit) -> None:
        """The bundle of a request is no longer served: the device shall say hello anew."""
        self.reject(job, RejectReason.NO_SESSION, "the MEC no longer serves this bundle; say hello again")

    def close_on(self, job: Admit) -> None:
        """The MEC stops before a request is answered."""
        self.reject(job, RejectReason.CLOSING, "the MEC is shutting down")

    def log_failure(self, error: Exception) -> None:
        """Log that this MEC failed on a message."""
        self._log(f"a request failed: {type(error).__name__}: {error}")

    def _record(
        self, job: Admit, queue_s: float, mec_s: float, ending: str, *, cached: bool = False, together: int = 0
    ) -> None:
        row, served = job.request.row, self._bundles.get(job.held)
        self._sinks.add(
            RequestRecord(
                device=self.names.get(job.peer, ""),
                peer=job.peer.hex(),
                request_id=job.request.request_id,
                row=row,
                decision=None if served is None else served.decision(row),
                arrived_at=None if self._epoch_s is None else round(self._epoch_s + job.arrived_s, 3),
                queue_s=round(queue_s, 6),
                mec_s=round(mec_s, 6),
                payload_bytes=len(job.payload),
                ending=ending,
                cached=cached,
                together=together,
            )
        )
