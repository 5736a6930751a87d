"""The queue of a MEC: which admitted request is served next, and which finds no room.

Theory of operation. The queue shares the MEC's time among devices by start-time fair queueing (Goyal, Vin and Cheng,
"Start-time Fair Queueing", 1996). Each request gets a start tag: the virtual time of its arrival, or the finish tag of
the request before it of the same device if that is later; its finish tag is its start tag plus its profiled time at the
MEC. The smallest start tag is served next, of equal ones the earliest arrival, and virtual time is the start tag in
service. So a device that asks for more than its share waits behind the others, and the requests of one device keep
their order. With one device, or when no device has two requests waiting, this is the order of arrival.

A request that has no chance is refused at its arrival, so that its device can answer in time by itself: when what will
be served before it leaves too little of its budget (``by_budget``). Both times are profiled ones, multiplied by how
much longer this MEC has taken of late. When none waits and none is served, a request is always taken: whoever is
refused by an estimate that is too high could never correct it.

Requests that wait can be computed together with the one whose turn it is (``alike``, ``join``). They are taken in the
same order, no device's request overtakes an earlier one of that device, and none that is overtaken becomes late by it.
Each costs its device as much as if it were computed alone.

A full queue gives up the newest request of the device that has most of them waiting, if that is more than the newcomer
would have.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable
from dataclasses import dataclass

from runtime.config.sections.admission import OPEN_ADMISSION, AdmissionSection
from runtime.mec.limits import Account
from runtime.protocol.mec_session import Admit

#: How much the request before the last one counts for the pace of this MEC, relative to the last.
_MEMORY = 0.95


@dataclass(frozen=True, slots=True)
class Refusal:
    """A request that finds no room, or lost it."""

    job: Admit
    why: str
    wait_s: float = 0.0  # how long it would have waited


@dataclass(order=True, slots=True)
class _Waiting:
    start: float  # tag, in virtual time
    number: int  # of its arrival
    job: Admit
    account: Account
    profiled_s: float


@dataclass(frozen=True, slots=True)
class Candidate:
    """A request that may be computed together with others."""

    job: Admit
    until_s: float  # how long a batch up to this one may take; not increasing from one to the next
    entry: _Waiting


class RequestQueue:
    """Owns the admitted requests that wait, and an estimate of the work that they are.

    ``add`` what arrives, ``take`` what is served next, ``join`` others to it, and say ``began`` and ``ended`` around
    computing them, or ``expired``.
    """

    def __init__(self, limit: int, admission: AdmissionSection = OPEN_ADMISSION, slowdown: float = 1.0) -> None:
        self._limit, self._device_limit = limit, admission.device_queue_limit
        self._is_fair, self._by_budget = admission.order == "fair", admission.by_budget
        self._waiting: list[_Waiting] = []  # a heap
        self._number = 0
        self._virtual = 0.0  # start tag of the request that was taken last
        self._most_finish = 0.0
        self._slowdown = slowdown
        self._took_s = self._profiled_s = 0.0  # sums over served requests, the last ones counting most
        self._taken: list[_Waiting] = []  # the request that was taken last, and those that joined it
        self._began_s: float | None = None

    def __len__(self) -> int:
        return len(self._waiting)

    def add(self, job: Admit, account: Account, profiled_s: float, now_s: float) -> Refusal | None:
        """Add a request whose tail takes so long in the profile. Returns the request that found no room, if one
        did: this one, or another one that waited."""
        if account.waiting >= self._device_limit:
            account.fault()
            return Refusal(job, f"{account.waiting} requests of this device wait already", self._wait_s(now_s))
        entry = self._entry(job, account, profiled_s)
        if self._by_budget and (refusal := self._hopeless(entry, now_s)):
            return refusal
        refusal = None
        if len(self) >= self._limit:
            if not (last := self._last_of_most(account)):
                return Refusal(job, f"{len(self)} requests wait already", self._wait_s(now_s))
            self._drop(last)
            refusal = Refusal(last.job, "requests of other devices need its place", self._wait_s(now_s))
        account.waiting += 1
        account.finish = entry.start + profiled_s
        self._most_finish = max(self._most_finish, account.finish)
        heapq.heappush(self._waiting, entry)
        return refusal

    def take(self) -> Admit:
        """Remove and return the request to serve next."""
        entry = heapq.heappop(self._waiting)
        entry.account.waiting -= 1
        self._virtual, self._taken = entry.start, [entry]
        return entry.job

    def alike(self, is_alike: Callable[[Admit], bool], now_s: float) -> list[Candidate]:
        """Who may be computed together with the request that was taken last, in the order in which they join it."""
        found: list[Candidate] = []
        passed = set[int]()  # accounts of which a request stays behind
        until_s, before_s = min(_left_s(entry, now_s) for entry in self._taken), 0.0
        for entry in sorted(self._waiting, key=_order):
            left_s = _left_s(entry, now_s)
            if left_s > 0.0 and id(entry.account) not in passed and is_alike(entry.job):
                until_s = min(until_s, left_s)
                found.append(Candidate(entry.job, until_s, entry))
                continue
            passed.add(id(entry.account))
            before_s += self.pace * entry.profiled_s
            if left_s > before_s:  # else it is late in any case
                until_s = min(until_s, left_s - before_s)
        return found

    def join(self, candidates: list[Candidate]) -> list[Admit]:
        """Take the first ones of those that ``alike`` found, and return their requests."""
        joined = {candidate.entry.number for candidate in candidates}
        self._waiting = [entry for entry in self._waiting if entry.number not in joined]
        heapq.heapify(self._waiting)
        for candidate in candidates:
            candidate.entry.account.waiting -= 1
            self._taken.append(candidate.entry)
        return [candidate.job for candidate in candidates]

    def expired(self) -> None:
        """The request that was taken last is too old and is not computed: its device keeps that part of its share."""
        for entry in self._taken:
            if not entry.account.waiting:
                entry.account.finish = entry.start

    def give_up(self, peer: bytes) -> list[Admit]:
        """Remove and return the requests of a connection that was closed: nobody waits for their answers."""
        gone = [entry for entry in self._waiting if entry.job.peer == peer]
        self._waiting = [entry for entry in self._waiting if entry.job.peer != peer]
        heapq.heapify(self._waiting)
        for entry in gone:
            entry.account.waiting -= 1
        return [entry.job for entry in gone]

    def began(self, now_s: float) -> None:
        """The request that was taken last is being computed, with those that joined it."""
        self._began_s = now_s

    def ended(self, took_s: float | None, failed: int = 0) -> None:
        """They were computed in so long, except so many that failed; None: all failed."""
        self._began_s = None
        if took_s is not None and self._taken:
            profiled_s = sum(entry.profiled_s for entry in self._taken) * (1.0 - failed / len(self._taken))
            self._took_s = _MEMORY * self._took_s + took_s
            self._profiled_s = _MEMORY * self._profiled_s + profiled_s
        self._taken = []
        if not self._waiting:  # nobody has more than its share of an idle MEC
            self._virtual = self._most_finish

    @property
    def pace(self) -> float:
        """How much longer this MEC takes than the profile says."""
        return self._took_s / self._profiled_s if self._profiled_s > 0.0 else self._slowdown

    def _entry(self, job: Admit, account: Account, profiled_s: float) -> _Waiting:
        self._number += 1
        start = max(self._virtual, account.finish) if self._is_fair else 0.0
        return _Waiting(start, self._number, job, account, profiled_s)

    def _hopeless(self, entry: _Waiting, now_s: float) -> Refusal | None:
        budget_s = entry.job.request.remaining_budget_ms / 1e3
        wait_s = self._wait_s(now_s, entry)
        if not wait_s or wait_s + self.pace * entry.profiled_s <= budget_s:
            return None
        return Refusal(entry.job, "what waits before it leaves too little of its budget", wait_s)

    def _wait_s(self, now_s: float, entry: _Waiting | None = None) -> float:
        """Expected time until this request, or one behind all others, would be served; 0 if nothing is before it."""
        pace, left_s = self.pace, 0.0
        if self._began_s is not None:
            taken_s = sum(entry.profiled_s for entry in self._taken)
            left_s = max(self._began_s + pace * taken_s - now_s, 0.0)
        before_s = sum(
            [
                other.profiled_s
                for other in self._waiting
                if (entry is None or other.start <= entry.start)
                and now_s - other.job.arrived_s < other.job.request.remaining_budget_ms / 1e3
            ]
        )
        return left_s + pace * before_s

    def _last_of_most(self, newcomer: Account) -> _Waiting | None:
        """The newest request of the device with most of them; None if the newcomer would have as many."""
        if not self._is_fair:
            return None
        most = max(self._waiting, key=lambda entry: (entry.account.waiting, entry.number))
        return most if most.account.waiting > newcomer.waiting + 1 else None

    def _drop(self, entry: _Waiting) -> None:
        self._waiting.remove(entry)
        heapq.heapify(self._waiting)
        entry.account.waiting -= 1
        entry.account.finish -= entry.profiled_s


def _order(entry: _Waiting) -> tuple[float, int]:
    """As ``_Waiting`` is ordered; a key is faster to sort by."""
    return entry.start, entry.number


def _left_s(entry: _Waiting, now_s: float) -> float:
    """What is left of a request's budget."""
    return entry.job.request.remaining_budget_ms / 1e3 - (now_s - entry.job.arrived_s)
