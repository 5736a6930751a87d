"""A circuit breaker: stops asking a MEC that does not answer well, although its link is up. No I/O and no clock here.

Theory of operation. While the breaker is closed, requests are sent. ``FAILURES`` in a row open it: requests that were
rejected, lost or answered wrongly, and those that were not answered in time. It then stays open for a pause. After that
it is half-open: one request is sent as a trial. If that is answered in time the breaker closes; if not, it opens for
twice the pause. What becomes of requests that were sent before it opened changes nothing. Pauses are those of a MEC
that misbehaves (``runtime.protocol.conduct``), and a breaker that has been closed for ``GOOD_S`` begins with the
shortest one again. While no other MEC is well, no pause is longer than ``LAST_RESORT_S``: a long one would keep the
device from the only MEC that may help, and a trial costs one frame a local answer that is not its best.
"""

from __future__ import annotations

import math

from runtime.protocol.conduct import GOOD_S, pause_s

#: Failures in a row that open the breaker.
FAILURES = 3
#: Longest pause while no other MEC is well.
LAST_RESORT_S = 1.0


class Breaker:
    """Owns the record of one MEC's failures."""

    def __init__(self) -> None:
        self.openings = 0
        self._failures = 0  # in a row, while closed
        self._pauses = 0  # in a row, without ``GOOD_S`` between them
        self._closed_s = -math.inf  # when it closed last
        self._trial_s = math.nan  # when the next trial may be sent; not a number while closed
        self._opened_s = -math.inf  # when it opened last
        self._on_trial = False

    @property
    def is_closed(self) -> bool:
        """Requests are sent as if there were no breaker."""
        return math.isnan(self._trial_s)

    def is_trial_due(self, now_s: float, last_resort: bool = False) -> bool:
        """One request may be sent, to see whether the MEC answers well again. ``last_resort``: no other one is well."""
        due_s = min(self._trial_s, self._opened_s + LAST_RESORT_S) if last_resort else self._trial_s
        return not self.is_closed and not self._on_trial and now_s >= due_s

    def lets_pass(self, now_s: float, last_resort: bool = False) -> bool:
        """A request may be sent now."""
        return self.is_closed or self.is_trial_due(now_s, last_resort)

    def sent(self) -> bool:
        """A request was sent. Returns whether it is a trial."""
        self._on_trial = not self.is_closed
        return self._on_trial

    def succeeded(self, trial: bool, now_s: float) -> bool:
        """A request was answered well. Returns whether that closed the breaker."""
        if self.is_closed:
            self._failures = 0
        if not trial:
            return False
        self._on_trial, self._trial_s, self._closed_s, self._failures = False, math.nan, now_s, 0
        return True

    def withdrawn(self) -> None:
        """The trial ended without telling anything about the MEC: another one is due."""
        self._on_trial = False

    def failed(self, trial: bool, now_s: float) -> float:
        """A request failed. Returns the pause for which the breaker is open from now on, in seconds; 0 if it stays as
        it is."""
        if trial:
            self._on_trial = False
            return self._open(now_s)
        if not self.is_closed:
            return 0.0
        self._failures += 1
        if self._failures < FAILURES:
            return 0.0
        if now_s - self._closed_s >= GOOD_S:
            self._pauses = 0
        return self._open(now_s)

    def _open(self, now_s: float) -> float:
        self._pauses += 1
        self.openings += 1
        pause = pause_s(self._pauses)
        self._opened_s, self._trial_s = now_s, now_s + pause
        return pause
