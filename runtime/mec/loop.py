"""The loop of a MEC: serve requests in the order of its queue (decode, run the tail, reply), and record each of them.

A MEC serves one bundle or several at a time (``runtime.mec.served``). The Hello of a device says which one it holds,
and each of its requests belongs to that one from its admission on.

Requests of one kind that wait are computed together where that is allowed (``runtime.mec.batches``).

The loop has one thread. It polls its socket between stages and while it idles, so arrival times are exact and pings are
answered while a tail runs. A separate I/O thread would cost a hand-over per message and compete for the interpreter
lock (measured by ``benchmarks/bench_overhead.py``). Two requests share no data, except that a payload may refer to an
earlier one of the same connection. ``Receivers`` keep what that needs. A request that is not served was not decoded
either, so what refers to it is rejected as ``REFERENCE``.

While no request waits, the loop warms up one stage at a time (``runtime.mec.warm_up``). A stop finishes the current
request if that takes at most 0.2 s, and rejects all others as ``CLOSING``.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

from controller.errors import RemoteProtocolError
from runtime.config.sections.admission import OPEN_ADMISSION, AdmissionSection
from runtime.config.tree import DEFAULTS
from runtime.link.link import Clock
from runtime.link.router import Incoming, Router
from runtime.link.transport import MAX_WAIT_S
from runtime.mec.answers import Answers
from runtime.mec.bundles import Bundles
from runtime.mec.limits import Account, Accounts, Verdict
from runtime.mec.queue import RequestQueue
from runtime.mec.records import MecCounts, RequestRecord
from runtime.mec.served import Ran, Served, StoppedError
from runtime.mec.status import mec_status
from runtime.observe.sinks import Sink, Sinks
from runtime.protocol import wire
from runtime.protocol.mec_session import MAX_REGISTERED, Actions, Admit, MecSession, Refused, SendTo
from runtime.protocol.operator_messages import OperatorMessage
from runtime.protocol.wire import RejectReason

if TYPE_CHECKING:  # needs the packages of the extra "deploy"
    from runtime.deploy.installer import Change
    from runtime.mec.desk import Desk

_FORGET_EVERY_S = 5.0
#: Time that a stop leaves to the current request.
_GRACE_S = 0.2
#: An operator's message is not answered while its sender has not taken more than this of earlier answers. Who waits for
#: each answer has acknowledged all of it.
_MOST_UNTAKEN_BYTES = 4 << 10
#: Closing a socket drops what the peer has not read yet, so the loop waits this long after the last message.
_LEAVE_S = 0.05


class MecLoop:
    """Owns the queue of admitted requests, and the bundles that are served.

    A ``slowdown`` above 1 emulates a slower machine: after the real computation the MEC idles until the profiled time
    of the tail times the slowdown has passed. ``log`` should fold repeated lines (``runtime.observe.repeats``), because
    peers can cause any number of them. ``counts`` is the first sink. ``desk`` answers operators; None: nobody does.
    """

    def __init__(
        self,
        router: Router,
        session: MecSession,
        bundles: Bundles,
        *,
        slowdown: float = 1.0,
        queue_limit: int = DEFAULTS.mec.queue_limit,
        admission: AdmissionSection = OPEN_ADMISSION,
        desk: Desk | None = None,
        sinks: Iterable[Sink[RequestRecord]] = (),
        clock: Clock = time.perf_counter,
        log: Callable[[str], None] = lambda _: None,
    ) -> None:
        self._router, self._session, self._slowdown = router, session, slowdown
        self._bundles, self._desk = bundles, desk
        self._clock, self._log = clock, log
        self._queue = RequestQueue(queue_limit, admission, slowdown)
        self._accounts = Accounts(admission)  # what each device has taken
        self._stopping: Callable[[], bool] = lambda: False
        self._stop_s = math.inf
        self._closing = False
        self._free_s = clock()  # when the emulated MEC has finished its last request
        self._began_s = clock()
        self._forget_s = clock() + _FORGET_EVERY_S
        self.counts = MecCounts()
        self._answers = Answers(router, bundles, Sinks([self.counts, *sinks], log), clock, log)

    def serve(self, stopping: Callable[[], bool]) -> None:
        """Serve until ``stopping`` returns True. Then reject the waiting requests and close every session."""
        self._stopping = stopping
        while not stopping():
            if not self._queue and not self._warm_up_step():
                self._router.wait(MAX_WAIT_S)
            self._poll()
            if self._queue:
                self._serve_next()
        self._leave()

    def _leave(self) -> None:
        self._closing = True
        while self._queue:
            self._answers.close_on(self._queue.take())
        self._act(self._session.close())
        end_s = self._clock() + _LEAVE_S
        while (left_s := end_s - self._clock()) > 0:
            self._router.wait(left_s)
            self._poll()

    def _warm_up_step(self) -> bool:
        """Run one step of the warm-up of one bundle; False when all are complete."""
        return any(served.warm_up_step(self._log) for served in self._bundles)

    # Receiving ----------------------------------------------------------------------------------------------

    def _poll(self) -> None:
        for arrived in self._router.receive():
            try:
                self._take(arrived)
            except Exception as error:  # noqa: BLE001 - the daemon's outermost loop: one message fails, the MEC goes on
                self.counts.failed += 1
                self._answers.log_failure(error)
        if self._clock() > self._forget_s:
            self._forget_s = self._clock() + _FORGET_EVERY_S
            self._session.forget_silent(self._clock())
            self._forget_names()
            for served in self._bundles:
                served.keep_only(self._answers.names)
            self._accounts.forget(self._clock())
            self._drop_unused()
        if self._desk is not None:
            self._take_over(self._desk.changes())

    def _take_over(self, changes: list[Change[Served | None]]) -> None:
        """Serve the releases that were committed since the last look."""
        for change in changes:
            if change.loaded is not None:
                self._bundles.add(change.release, change.loaded)
                self._session.serve(self._bundles.held)
                self._router.settle()

    def _drop_unused(self) -> None:
        for held in self._bundles.drop_unused(set(self._session.held.values()), self._clock()):
            self._session.serve(self._bundles.held)
            self._log(f"bundle {held.bundle_digest[:12]} of {held.workload} has drained and is no longer served")

    def _forget_names(self) -> None:
        self._answers.names = {peer: self._answers.names.get(peer, "") for peer in self._session.registered}

    def _take(self, arrived: Incoming) -> None:
        """Handle a message, unless its device takes more than it may."""
        now_s = self._clock()
        account = self._accounts.of(arrived, now_s)
        verdict = account.judge(sum(len(part) for part in arrived.parts), now_s)
        if verdict is Verdict.PASS:
            self._act(self._handle(arrived, account), account)
            return
        self.counts.shed += 1
        if verdict is Verdict.SHED:
            self._answer_shed(arrived, now_s)
        elif verdict is Verdict.CUT:
            self._cut_off(arrived)

    def _cut_off(self, arrived: Incoming) -> None:
        """Close a connection. Its requests have nobody any more who waits for their answers. The account of a known
        user bars it; of a plain peer only the address can be barred."""
        if self._router.disconnect(arrived.peer, bar=not arrived.user):
            self.counts.cut_off += 1
            self._log("cut off a device that sends more than it may")
            for job in self._queue.give_up(arrived.peer):
                self._answers.reject(job, RejectReason.BUSY, "its connection was closed")

    def _answer_shed(self, arrived: Incoming, now_s: float) -> None:
        """Reject a message that is shed if it is a request; drop any other."""
        try:
            message, buffer = wire.decode(arrived.parts)
        except RemoteProtocolError:
            return
        if isinstance(message, wire.InferRequest):
            for action in self._session.receive(arrived.peer, message, buffer, now_s):
                if isinstance(action, Admit):
                    self._answers.reject(action, RejectReason.BUSY, "this device sends more than it may")

    def _handle(self, arrived: Incoming, account: Account) -> Actions:
        peer = arrived.peer
        try:
            message, buffer = wire.decode(arrived.parts)
        except RemoteProtocolError as error:
            account.fault()
            return self._session.malformed(peer, error)
        if isinstance(message, wire.Hello):
            self._remember_name(peer, arrived.user or message.device)
        if isinstance(message, wire.Hello | wire.Bye):
            for served in self._bundles:
                served.drop(peer)
        if self._desk is not None and isinstance(message, OperatorMessage):
            if self._router.unread_bytes(peer) > _MOST_UNTAKEN_BYTES:
                self.counts.shed += 1
                return []
            return [self._desk.answer(peer, arrived.user, message, buffer, self._status)]
        return self._session.receive(peer, message, buffer, self._clock())

    def _status(self) -> dict[str, Any]:
        if self._desk is not None:  # a status that says "committed" shall name what is served now
            self._take_over(self._desk.changes())
        at_s = self._clock(), self._began_s
        return mec_status(self._bundles, self._session, self._answers.names, len(self._queue), self.counts, *at_s)

    def _remember_name(self, peer: bytes, device: str) -> None:
        if len(self._answers.names) > 2 * MAX_REGISTERED:  # a flood of Hello messages
            self._forget_names()
        self._answers.names[peer] = device

    def _act(self, actions: Actions, account: Account | None = None) -> None:
        for action in actions:
            match action:
                case SendTo():
                    self._router.send(action.peer, wire.encode(action.message, action.buffer))
                case Refused():
                    self.counts.refused += 1
                    self._log(f"refused a device: {action.why}")
                case Admit():
                    assert account is not None
                    self._admit(action, account)
        self.counts.peer_faults = self._session.faults

    def _admit(self, job: Admit, account: Account) -> None:
        """Queue a request that can be served; reject any other at once, so that it takes no memory."""
        served = self._bundles.get(job.held)
        if self._closing:
            self._answers.close_on(job)
        elif served is None:
            self._answers.withdrawn(job)
        elif fault := served.fault(job.request, len(job.payload)):
            self._answers.reject(job, *fault)
        elif refused := self._queue.add(job, account, served.expected_s(job.request.row), self._clock()):
            self._answers.reject(refused.job, RejectReason.BUSY, refused.why, refused.wait_s)

    # Serving ------------------------------------------------------------------------------------------------

    def _serve_next(self) -> None:
        job = self._queue.take()
        # An emulated MEC starts the next request without a gap. The time that this process takes between two requests
        # is not part of the emulation, and at a high load it would lengthen the queue.
        began_s = max(job.arrived_s, self._free_s) if self._slowdown > 1.0 else self._clock()
        waited_s = began_s - job.arrived_s
        if waited_s * 1e3 > job.request.remaining_budget_ms:
            self._queue.expired()
            self._answers.reject(job, RejectReason.EXPIRED, "it waited too long", waited_s)
            return
        served = self._bundles.get(job.held)
        if served is None:
            self._answers.withdrawn(job)
            return
        self._serve_together(served, [job, *self._joining(served, job, began_s)], began_s)

    def _serve_together(self, served: Served, jobs: list[Admit], began_s: float) -> None:
        """Compute and answer requests of one kind, usually one."""
        self._queue.began(began_s)
        try:
            found = self._run(served, jobs, began_s)
        except StoppedError:
            found = []
            for job in jobs:
                self._answers.close_on(job)
        except Exception as error:  # noqa: BLE001 - the daemon's outermost loop: requests fail, the MEC goes on
            found = [error] * len(jobs)
        ended_s = self._clock()
        for job, one in zip(jobs, found, strict=False):
            self._answers.answer(job, one, began_s, ended_s, len(jobs))
        failed = sum(isinstance(one, Exception) for one in found)
        self._queue.ended(None if failed == len(found) else ended_s - began_s, failed)

    def _joining(self, served: Served, job: Admit, now_s: float) -> list[Admit]:
        """The requests that are computed together with this one."""
        most = served.most_together(job.request.row)
        if most == 1 or not self._queue:
            return []
        kind = served.kind(job.request.row)
        alike = self._queue.alike(lambda it: it.held == job.held and served.kind(it.request.row) == kind, now_s)
        size = served.batches.size(kind, [candidate.until_s for candidate in alike[: most - 1]])
        return self._queue.join(alike[: size - 1])

    def _run(self, served: Served, jobs: list[Admit], began_s: float) -> list[Ran | Exception]:
        """What became of each request; returns when the emulated MEC would have it."""
        row = jobs[0].request.row
        served.prefer(row)
        computing_s = self._clock()
        found = served.run(jobs, self._between_stages)
        if self._slowdown > 1.0 and isinstance(found[0], Ran):
            took_s = self._clock() - computing_s
            lasts_s = self._slowdown * took_s if found[0].cached else self._emulated_s(served, row, took_s)
            self._free_s = max(began_s + lasts_s, self._clock())
            self._idle_until(self._free_s)
        served.learn(row, found, (self._clock() - computing_s) / self._slowdown)
        return found

    def _between_stages(self) -> None:
        self._poll()
        if self._clock() > self._grace_end_s():
            raise StoppedError

    def _grace_end_s(self) -> float:
        """Time limit of the current request; infinite while no stop is requested."""
        if self._stop_s == math.inf and self._stopping():
            self._stop_s = self._clock()
        return self._stop_s + _GRACE_S

    def _emulated_s(self, served: Served, row: int, took_s: float) -> float:
        """How long the emulated MEC computes; without a profile, the measured time stands for the profiled one."""
        profiled_s = served.profiled_s(row)
        return (took_s if profiled_s is None else profiled_s) * self._slowdown

    def _idle_until(self, end_s: float) -> None:
        while (left_s := end_s - self._clock()) > 0:
            if end_s > self._grace_end_s():
                raise StoppedError
            self._router.wait(left_s)
            self._poll()
