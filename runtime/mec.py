"""What does the MEC do with requests? First come, first served: decode, run the tail, reply.

One thread. It polls its socket between stages and while it idles, so that arrivals are stamped when they come and pings
are answered while a tail runs; an I/O thread of its own would cost a hand-over per message and fight for the
interpreter. Measured on loopback: see ``benchmarks/bench_overhead.py``. Nothing is kept between two requests.
"""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from controller.costs import CostTable
from controller.errors import RemoteProtocolError, UsageError
from controller.records import Decision
from runtime import wire
from runtime.link import Clock
from runtime.mec_session import Actions, Admit, MecSession, SendTo
from runtime.segments import Segments
from runtime.transport import MAX_WAIT_S, Router
from runtime.wire import RejectReason

QUEUE_LIMIT = 64
#: Time over which the load is averaged.
_LOAD_WINDOW_S = 1.0
_FORGET_EVERY_S = 5.0
#: A closed connection takes with it what its peer has not read yet, so the last words get this long.
_LEAVE_S = 0.05


@dataclass
class MecCounts:
    """What a MEC has done."""

    served: int = 0
    rejected: int = 0
    failed: int = 0
    peer_faults: int = 0


class MecServer:
    """Owns the queue of admitted requests. ``slowdown`` > 1 emulates a share of the machine: after the real
    computation the MEC idles until the profiled time of the tail times the slowdown has passed."""

    def __init__(
        self,
        router: Router,
        session: MecSession,
        segments: Segments,
        costs: CostTable,
        *,
        slowdown: float = 1.0,
        queue_limit: int = QUEUE_LIMIT,
        clock: Clock = time.perf_counter,
        log: Callable[[str], None] = lambda _: None,
    ) -> None:
        self._router, self._session, self._segments, self._costs = router, session, segments, costs
        self._slowdown, self._queue_limit = slowdown, queue_limit
        self._clock, self._log = clock, log
        self._queue: deque[Admit] = deque()
        self._closing = False
        self._load_frac = 0.0
        self._free_s = clock()  # when the emulated server has done what it began
        self._last_end_s = clock()
        self._forget_s = clock() + _FORGET_EVERY_S
        self.counts = MecCounts()

    def serve(self, stopping: Callable[[], bool]) -> None:
        """Serve until told to stop; then finish what was admitted, reject the rest and say good-bye."""
        while not stopping():
            if not self._queue:
                self._router.wait(MAX_WAIT_S)
            self._poll()
            if self._queue:
                self._serve_next()
        self._closing = True
        while self._queue:
            self._serve_next()
        self._act(self._session.close())
        self._idle_until(self._clock() + _LEAVE_S)

    # What arrives -------------------------------------------------------------------------------------------

    def _poll(self) -> None:
        for peer, parts in self._router.receive():
            now_s = self._clock()
            try:
                message, buffer = wire.decode(parts)
            except RemoteProtocolError as error:
                self._act(self._session.malformed(peer, error))
            else:
                self._act(self._session.receive(peer, message, buffer, len(self._queue), now_s))
        if self._clock() > self._forget_s:
            self._forget_s = self._clock() + _FORGET_EVERY_S
            self._session.forget_silent(self._clock())

    def _act(self, actions: Actions) -> None:
        for action in actions:
            if isinstance(action, SendTo):
                self._router.send(action.peer, wire.encode(action.message))
            elif self._closing:
                self._reject(action, RejectReason.CLOSING, "the MEC is shutting down")
            elif len(self._queue) >= self._queue_limit:
                self._reject(action, RejectReason.BUSY, f"{len(self._queue)} requests wait already")
            else:
                self._queue.append(action)
        self.counts.peer_faults = self._session.faults

    # What is done about it ----------------------------------------------------------------------------------

    def _serve_next(self) -> None:
        job = self._queue.popleft()
        # An emulated MEC goes from one request to the next at once: what this process takes in between is not its own,
        # and at a high load the queue would feel it.
        began_s = max(job.arrived_s, self._free_s) if self._slowdown > 1.0 else self._clock()
        waited_s = began_s - job.arrived_s
        if waited_s * 1e3 > job.request.remaining_budget_ms:
            self._reject(job, RejectReason.EXPIRED, f"waited {waited_s * 1e3:.0f} ms", waited_s)
            return
        try:
            row = self._row(job.request)
            outputs = self._segments.tail(memoryview(job.payload), self._costs.space.decisions[row], self._poll)
        except UsageError as error:
            self._reject(job, RejectReason.ILLEGAL, str(error))
        except RemoteProtocolError as error:
            self._reject(job, RejectReason.PAYLOAD, str(error))
        except Exception as error:  # noqa: BLE001 - the daemon's outermost loop: one request fails, the MEC stays
            self.counts.failed += 1
            self._log(f"request {job.request.request_id} failed: {type(error).__name__}: {error}")
            self._reject(job, RejectReason.FAILED, type(error).__name__)
        else:
            self._free_s = max(began_s + self._emulated_s(row), self._clock())
            self._idle_until(self._free_s)
            self._reply(job, outputs, began_s)

    def _row(self, request: wire.InferRequest) -> int:
        """Row of what is asked for; UsageError when it is no legal offload."""
        r = request
        row = self._costs.space.index(Decision(r.model, r.resolution_px, r.exit_branch, r.partition_point, r.codec))
        shape = self._segments.bundle.payload_shape(r.model, r.resolution_px, r.partition_point)
        if self._costs.space.device_only[row] or r.shape != shape:
            raise UsageError(f"got {r.codec} of shape {r.shape}; expected a payload of shape {shape}")
        return row

    def _emulated_s(self, row: int) -> float:
        return float(self._costs.mec_s[row]) * self._slowdown if self._slowdown > 1.0 else 0.0

    def _idle_until(self, end_s: float) -> None:
        while (left_s := end_s - self._clock()) > 0:
            self._router.wait(left_s)
            self._poll()

    def _reply(self, job: Admit, outputs: np.ndarray, began_s: float) -> None:
        end_s = self._clock()
        self._measure_load(end_s - began_s, end_s)
        self.counts.served += 1
        reply = wire.InferReply(
            job.request.request_id,
            outputs.shape,
            (began_s - job.arrived_s) * 1e3,
            (end_s - began_s) * 1e3,
            len(self._queue),
            self._load_frac,
        )
        self._router.send(job.peer, wire.encode(reply, np.ascontiguousarray(outputs).data.cast("B")))

    def _reject(self, job: Admit, reason: RejectReason, text: str, waited_s: float = 0.0) -> None:
        self.counts.rejected += 1
        reject = wire.Reject(job.request.request_id, reason, text[:500], waited_s * 1e3)
        self._router.send(job.peer, wire.encode(reject))

    def _measure_load(self, busy_s: float, end_s: float) -> None:
        """Busy share, forgotten exponentially."""
        gap_s = max(end_s - self._last_end_s, busy_s, 1e-9)
        self._last_end_s = end_s
        self._load_frac += (1 - math.exp(-gap_s / _LOAD_WINDOW_S)) * (min(busy_s / gap_s, 1.0) - self._load_frac)
