"""A device's MECs, where it has several, or a breaker for the only one: to its loop they are one connection.

Theory of operation. Every MEC has a connection of its own, which greets it, measures it and notices its failures. The
chooser names the one that is asked. All questions of the loop are about that one, and requests go to it; results come
from all. A choice is made in ``poll``, and when a request is overdue, which is found out there as well. So it holds
between a payload and its request. It may change while the head of a frame runs: the request then goes to the new MEC,
and a payload that refers to an earlier one is encoded anew (``MovingDraft``), because references are of one connection.

The others stand by: each is greeted, its uplink is probed once when its link comes up, and it is pinged every
``STANDBY_HEARTBEAT_S``. When the breaker of one of them is half-open, the next request is its trial. That frame is as
safe as any other, because the device answers it itself if the MEC does not.

``LinkWatch`` counts and logs what the whole is: up while any link is.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

from controller.records import Decision, PayloadKey
from runtime.link.connection import Lost, MecConnection, Offload, Replied
from runtime.link.link import Clock
from runtime.link.link_watch import Counts, LinkWatch
from runtime.link.mec_telemetry import MecObservation
from runtime.link.mecs.chooser import Chooser
from runtime.link.mecs.draft import MovingDraft
from runtime.link.mecs.member import Member
from runtime.link.senders import Draft
from runtime.protocol.device_actions import LinkState

JobT = TypeVar("JobT")

#: Returns when one of the descriptors is readable, or at that time.
Sleep = Callable[[tuple[int, ...], float], None]


@dataclass
class MecsCounts(Counts):
    """The counts of a device with several MECs, and those of each."""

    switches: int = 0  # changes of the MEC that is asked in the long run
    mecs: list[dict[str, Any]] = field(default_factory=list)  # in the order of preference


class Mecs(Generic[JobT]):
    """Owns the connections to several MECs and the choice between them. Single-threaded; only ``wait`` blocks."""

    def __init__(
        self,
        connections: Sequence[tuple[str, MecConnection[JobT]]],
        *,
        clock: Clock,
        sleep: Sleep,
        log: Callable[[str], None] = lambda _: None,
    ) -> None:
        """``connections``: each with its name, the preferred one first."""
        now_s = clock()
        self._members = [Member(name, connection, log) for name, connection in connections]
        self._clock, self._sleep, self._log = clock, sleep, log
        self._chooser = Chooser(len(self._members), now_s)
        self._asked = self._home = self._members[0]
        self._trial: Member[JobT] | None = None  # whose breaker wants the next request
        self._counts = MecsCounts()
        self._state = LinkState.WAITING
        names = ", ".join(member.name for member in self._members)
        self._watch = LinkWatch(names, self._counts, self._trouble, log, now_s)
        self._started = False  # until then the preferred one has time to answer

    # Of the MEC that is asked -------------------------------------------------------------------------------

    @property
    def is_up(self) -> bool:
        return self._asked.can_be_asked(self._clock())

    @property
    def is_full(self) -> bool:
        return self._asked.connection.is_full

    @property
    def takes_more(self) -> bool:
        return self.is_up and self._asked.connection.takes_more

    @property
    def is_overdue(self) -> bool:
        return self._asked.connection.is_overdue

    @property
    def uplink_bps(self) -> float:
        return self._asked.connection.uplink_bps

    def observe(self, now_s: float) -> MecObservation:
        seen = self._asked.connection.observe(now_s)
        return seen if self.is_up else dataclasses.replace(seen, link_up=False)

    def probe_if_stale(self, now_s: float) -> None:
        self._asked.connection.probe_if_stale(now_s)

    def reference_age(self, stream: PayloadKey, frame: int) -> int:
        return self._asked.connection.reference_age(stream, frame)

    def draft(self, decision: Decision, frame: int) -> Draft | None:
        def find() -> Draft:
            draft = self._target.connection.draft(decision, frame)
            assert draft is not None, "whether a decision has streams does not depend on the MEC"
            return draft

        return None if self._target.connection.draft(decision, frame) is None else MovingDraft(find)

    def offload(self, job: JobT, offload: Offload, now_s: float) -> float | None:
        target, self._trial = self._target, None
        return target.offload(job, offload, now_s)

    @property
    def _target(self) -> Member[JobT]:
        """Where the next request goes."""
        return self._trial or self._asked

    # Of all -------------------------------------------------------------------------------------------------

    @property
    def counts(self) -> MecsCounts:
        """The counts of the whole; those of each MEC as of now."""
        each = [member.connection.counts for member in self._members]
        self._counts.peer_faults = sum(counts.peer_faults for counts in each)
        self._counts.reconnects = sum(counts.reconnects for counts in each)
        self._counts.mecs = [member.as_json() for member in self._members]
        return self._counts

    @property
    def is_greeting(self) -> bool:
        return any(member.connection.is_greeting for member in self._members)

    @property
    def is_probing(self) -> bool:
        return any(member.connection.is_probing for member in self._members)

    @property
    def in_flight(self) -> tuple[JobT, ...]:
        return tuple(job for member in self._members for job in member.connection.in_flight)

    def reply_chance(self, job: JobT, now_s: float, answer_by_s: float) -> float:
        holder = next(m for m in self._members if any(other is job for other in m.connection.in_flight))
        return holder.connection.reply_chance(job, now_s, answer_by_s)

    def release(self, job: JobT) -> None:
        for member in self._members:
            member.release(job)

    def note_overdue(self, job: JobT) -> None:
        now_s = self._clock()
        for member in self._members:
            member.note_overdue(job, now_s)
        self._choose(now_s)  # the next frame goes to another MEC already

    def start(self, now_s: float) -> None:
        for member in self._members:
            member.connection.start(now_s)
        self._watch.start(now_s)
        self._started = True
        self._choose(now_s)

    def poll(self) -> list[Replied[JobT] | Lost[JobT]]:
        now_s = self._clock()
        events = [event for member in self._members for event in member.poll(now_s)]
        self._watch_links(now_s)
        if self._started:
            self._choose(now_s)
        return events

    def wait(self, until_s: float) -> None:
        wakes = [member.connection.wake() for member in self._members]
        descriptors = tuple(descriptor for wake in wakes for descriptor in wake.descriptors)
        self._sleep(descriptors, min([until_s, *(wake.at_s for wake in wakes)]))

    def close(self) -> None:
        self._watch.finish(self._clock())
        for member in self._members:
            member.connection.close()

    # The choice ---------------------------------------------------------------------------------------------

    def _choose(self, now_s: float) -> None:
        healths = [member.health(now_s) for member in self._members]
        asked = self._members[self._chooser.choose(healths, now_s)]
        none_is_well = not any(health.is_well for health in healths)
        for member in self._members:
            member.is_last_resort = none_is_well
        if not asked.can_be_asked(now_s):  # the only ones that can be are on trial
            asked = next((member for member in self._members if member.can_be_asked(now_s)), asked)
        self._asked = asked
        others = (member for member in self._members if member is not asked)
        self._trial = next((member for member in others if member.wants_trial(now_s)), None)
        home = self._members[self._chooser.home]
        if home is not self._home:
            self._counts.switches += 1
            self._log(f"the MEC at {home.name} is asked from now on, not the one at {self._home.name}")
            self._home = home
        for member in self._members:
            member.connection.stands_by = member is not home and member is not asked

    # The link as a whole ------------------------------------------------------------------------------------

    def _watch_links(self, now_s: float) -> None:
        state, why = self._links()
        if state is not self._state:
            self._state = state
            self._watch.on_change(state, why, now_s)
        self._watch.report(now_s)

    def _links(self) -> tuple[LinkState, str]:
        """The state of the whole, and why."""
        if any(member.connection.is_up for member in self._members):
            return LinkState.UP, "a MEC can be asked"
        refused = [member.connection.counts.refused for member in self._members]
        if all(refused):
            return LinkState.REFUSED, refused[0]
        return LinkState.DOWN if self._counts.welcomed else LinkState.WAITING, "no MEC can be asked"

    def _trouble(self) -> str:
        """Why none answers: what is known of the first one, in the order of preference, of which something is."""
        return next((counts.trouble for m in self._members if (counts := m.connection.counts).trouble), "")
