"""One of several MECs: its connection, its breaker, and what its requests say about both."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from runtime.link.connection import Lost, MecConnection, Offload, Replied
from runtime.link.mecs.breaker import FAILURES, Breaker
from runtime.link.mecs.chooser import Health

JobT = TypeVar("JobT")


@dataclass
class Figures:
    """What one of several MECs did in a run, beside the counts of its link."""

    answered: int = 0  # requests, in time or not
    failed: int = 0  # requests: rejected, lost, answered wrongly or not in time


class Member(Generic[JobT]):
    """Owns the connection to one MEC, the breaker, and which requests were trials or are overdue."""

    def __init__(self, name: str, connection: MecConnection[JobT], log: Callable[[str], None]) -> None:
        self.name, self.connection, self._log = name, connection, log
        self.figures = Figures()
        self.is_last_resort = False  # no MEC is well, so that this one is tried more often
        self._breaker = Breaker()
        self._trial: list[JobT] = []  # the request that is one, if any
        self._overdue: list[JobT] = []

    def can_be_asked(self, now_s: float) -> bool:
        """The link is up, and the breaker lets a request pass."""
        return self.connection.is_up and self._breaker.lets_pass(now_s, self.is_last_resort)

    def wants_trial(self, now_s: float) -> bool:
        """One request should be sent, to see whether this MEC answers well again."""
        connection = self.connection
        return self._breaker.is_trial_due(now_s) and connection.takes_more and not connection.is_overdue

    def health(self, now_s: float) -> Health:
        """What the chooser must know."""
        connection = self.connection
        is_well = connection.is_up and self._breaker.is_closed
        return Health(is_well, connection.is_overdue, connection.expected_s(now_s))

    def as_json(self) -> dict[str, Any]:
        """The figures and the counts of the link, by name."""
        figures = dataclasses.asdict(self.figures) | {"breaker_openings": self._breaker.openings}
        return {"mec": self.name} | figures | self.connection.counts.as_json()

    def offload(self, job: JobT, offload: Offload, now_s: float) -> float | None:
        """As ``MecConnection.offload``."""
        if self._breaker.sent():
            self._trial = [job]
        return self.connection.offload(job, offload, now_s)

    def poll(self, now_s: float) -> list[Replied[JobT] | Lost[JobT]]:
        """As ``MecConnection.poll``."""
        return [self._learned(event, now_s) for event in self.connection.poll()]

    def note_overdue(self, job: JobT, now_s: float) -> None:
        """As ``MecConnection.note_overdue``; nothing if the request went to another MEC."""
        if _holds(self.connection.in_flight, job):
            self.connection.note_overdue(job)
            self._overdue.append(job)
            self._failed(job, now_s)

    def release(self, job: JobT) -> None:
        """As ``MecConnection.release``."""
        self.connection.release(job)
        self._end_trial(job)
        self._overdue = [other for other in self._overdue if other is not job]

    def _learned(self, event: Replied[JobT] | Lost[JobT], now_s: float) -> Replied[JobT] | Lost[JobT]:
        was_overdue = _holds(self._overdue, event.job)
        self._overdue = [other for other in self._overdue if other is not event.job]
        if isinstance(event, Replied):
            self.figures.answered += 1
            if not was_overdue and self._breaker.succeeded(self._take_trial(event.job), now_s):
                self._log(f"the MEC at {self.name} answers well again")
            return dataclasses.replace(event, mec=self.name)
        if event.unknown_reference:
            self._end_trial(event.job)
        elif not was_overdue:
            self._failed(event.job, now_s)
        return event

    def _failed(self, job: JobT, now_s: float) -> None:
        self.figures.failed += 1
        trial = self._take_trial(job)
        if pause_s := self._breaker.failed(trial, now_s):
            why = "it failed again" if trial else f"it failed {FAILURES} times in a row"
            self._log(f"the breaker of the MEC at {self.name} is open for {pause_s:g} s: {why}")

    def _end_trial(self, job: JobT) -> None:
        """A request ended in a way that tells nothing about the MEC."""
        if self._take_trial(job):
            self._breaker.withdrawn()

    def _take_trial(self, job: JobT) -> bool:
        """Whether a request is the trial, which then has ended."""
        trial = _holds(self._trial, job)
        if trial:
            self._trial = []
        return trial


def _holds(jobs: list[JobT] | tuple[JobT, ...], job: JobT) -> bool:
    return any(other is job for other in jobs)
