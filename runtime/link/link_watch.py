"""Counts what happens to a device's link, and logs a line while no MEC answers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

from runtime.protocol.device_actions import LinkState

#: Time until a link that is not up is logged for the first time, and interval of the lines after that.
REPORT_AFTER_S = 1.0
REPORT_EVERY_S = 60.0
#: The search for the reason starts this much earlier, and the line waits for it at most this much longer.
_ASK_EARLY_S = 0.6
_REASON_WAIT_S = 1.0
#: What a device with one MEC does while its link is not up.
ANSWERING_LOCALLY = "answering locally"


@dataclass
class Counts:
    """Counters and facts about a device's link."""

    peer_faults: int = 0  # protocol errors of the MEC
    link_downs: int = 0
    refused: str = ""  # why the MEC refuses this device; empty if it does not
    welcomed: bool = False  # whether a MEC has ever accepted this device
    up_frac: float | None = None  # share of the run during which the link was up; None before the first frame
    reconnects: int = 0  # connections opened after the first
    trouble: str = ""  # why no MEC answers; empty while one does, or while the reason is unknown
    tcp: dict[str, float] | None = None  # the connection at the end of the run (``runtime.link.tcp_state``)

    def as_json(self) -> dict[str, Any]:
        """The fields by name; None for what is unknown or did not happen."""
        return asdict(self) | {"refused": self.refused or None, "trouble": self.trouble or None}


class LinkWatch:
    """Owns the counts, how long the link has been down, and when that is logged next. ``trouble`` returns the
    reason."""

    def __init__(
        self,
        endpoint: str,
        counts: Counts,
        trouble: Callable[[], str],
        log: Callable[[str], None],
        now_s: float,
        otherwise: str = ANSWERING_LOCALLY,  # what the device does while the link is not up; "" is not logged
    ) -> None:
        self._endpoint, self._counts, self._trouble, self._log = endpoint, counts, trouble, log
        self._otherwise = otherwise
        self._start_s: float | None = None  # of the run
        self._changed_s = self._absent_since_s = now_s
        self._report_s = now_s + REPORT_AFTER_S
        self._is_up = False
        self._has_reason = False  # for the line that comes next
        self._is_asking = False  # for the reason, which was not taken yet
        self._up_for_s = 0.0

    def start(self, now_s: float) -> None:
        """The run begins: ``up_frac`` counts from here."""
        self._start_s = self._changed_s = now_s
        self._up_for_s = 0.0

    def on_change(self, state: LinkState, why: str, now_s: float) -> None:
        """The link has a new state."""
        self._count_to(now_s)
        is_up = state is LinkState.UP
        otherwise = f"; {self._otherwise}" if self._otherwise and not is_up else ""
        self._log(f"the link is {state.value}: {why}{otherwise}")
        self._counts.refused = why if state is LinkState.REFUSED else ""
        self._counts.link_downs += self._is_up and not is_up
        self._counts.welcomed |= is_up
        if is_up:
            self._counts.trouble = ""
        elif self._is_up:
            self._absent_since_s, self._report_s = now_s, now_s + REPORT_AFTER_S
            self._has_reason = False
        self._is_up = is_up

    def on_fault(self, text: str) -> None:
        """The MEC broke the protocol."""
        self._counts.peer_faults += 1
        self._log(f"the MEC broke the protocol: {text}")
        if not self._counts.welcomed:
            self._counts.trouble = text

    def report(self, now_s: float) -> None:
        """Log that no MEC answers, if a line is due."""
        if self._is_up:
            self._is_asking = self._is_asking and not self._trouble()  # the next outage may have another reason
            return
        if self._counts.refused:
            return
        is_soon = now_s >= self._report_s - _ASK_EARLY_S
        if self._is_asking or (is_soon and not self._has_reason):
            reason = self._trouble()
            self._is_asking = not reason
            if reason:
                self._counts.trouble, self._has_reason = reason, is_soon
        if now_s < self._report_s or (not self._has_reason and now_s < self._report_s + _REASON_WAIT_S):
            return
        self._report_s, self._has_reason = now_s + REPORT_EVERY_S, False
        self._log(self._line(now_s - self._absent_since_s))

    def finish(self, now_s: float) -> None:
        """Bring ``up_frac`` up to date."""
        self._count_to(now_s)
        if self._start_s is not None and now_s > self._start_s:
            self._counts.up_frac = round(self._up_for_s / (now_s - self._start_s), 4)

    def _count_to(self, now_s: float) -> None:
        self._up_for_s += (now_s - self._changed_s) if self._is_up else 0.0
        self._changed_s = now_s

    def _line(self, absent_s: float) -> str:
        reason = f" ({self._counts.trouble})" if self._counts.trouble else ""
        since = f" for {absent_s:.0f} s" if absent_s >= REPORT_EVERY_S else ""
        otherwise = f": {self._otherwise}" if self._otherwise else ""
        if self._counts.welcomed:
            return f"the MEC at {self._endpoint} has not answered{since}{reason}{otherwise}"
        return f"no MEC at {self._endpoint} yet{since}{reason}{otherwise}"
