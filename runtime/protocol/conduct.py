"""How well does a peer behave, and for how long is it left alone when it does not? No I/O, no clock of its own.

A MEC only ever answers: for each message of ours it sends one, and a good-bye. One that says much more floods us,
whatever it says. One that breaks the protocol now and then is counted; one that does so all the time is cut off. So is
one that gives wrong answers to several requests in a row: each of them costs a frame some of its time. And one that is
gone as soon as it has welcomed us is not worth a decision. Each such end doubles the pause before the next connection,
up to ``MOST_PAUSE_S``; a link that has held for ``GOOD_S`` has made up for it.
"""

from __future__ import annotations

#: Faults per second that are borne, and at most so many at once.
FAULTS_PER_S = 20.0
#: Wrong answers to requests without a good one in between. After that one more is enough.
LIES = 5
#: Messages beyond one for each of ours that are borne per second, and at most so many at once: a MEC may answer twice,
#: and greetings over several connections may all be answered.
UNASKED_PER_S, UNASKED = 100.0, 64
#: A link that ends sooner after it came up has not really been up; so many of these in a row may be chance.
SHORT_S = 1.2
_FREE_SHORT_ENDS = 3
#: A link that has held this long is trusted as on the first day.
GOOD_S = 10.0
FIRST_PAUSE_S = 0.5
MOST_PAUSE_S = 30.0


class Conduct:
    """Owns what is held against one peer."""

    def __init__(self) -> None:
        self._faults = 0.0
        self._fault_s = 0.0
        self._lies = 0
        self._unasked = 0.0
        self._heard_s = 0.0
        self._short_ends = 0
        self._cut_offs = 0

    def said(self) -> None:
        """We said something, so one answer is due."""
        self._unasked = max(self._unasked - 1.0, -UNASKED)

    def heard(self, now_s: float) -> None:
        """It said something."""
        if self._unasked > 0:
            self._unasked = max(self._unasked - UNASKED_PER_S * (now_s - self._heard_s), 0.0)
        self._unasked += 1.0
        self._heard_s = now_s

    def fault(self, now_s: float) -> None:
        """It broke a rule."""
        self._faults = max(self._faults - FAULTS_PER_S * (now_s - self._fault_s), 0.0) + 1.0
        self._fault_s = now_s

    def lied(self) -> None:
        """It gave a wrong answer to a request."""
        self._lies += 1

    def answered(self) -> None:
        """It gave a good one."""
        self._lies = 0

    @property
    def offence(self) -> str:
        """Why it has to be cut off; empty when it need not."""
        if self._faults > FAULTS_PER_S:
            return "it broke the protocol again and again"
        if self._lies >= LIES:
            return f"{LIES} answers in a row were wrong"
        if self._unasked > UNASKED:
            return f"it sent {UNASKED} messages that nobody asked for"
        return ""

    def cut_off(self) -> float:
        """It was cut off: how long to leave it alone."""
        self._cut_offs += 1
        self._faults = self._unasked = 0.0
        self._lies = min(self._lies, LIES - 1)
        return self._pause_s(self._cut_offs + max(self._short_ends - _FREE_SHORT_ENDS, 0))

    def ended(self, lasted_s: float) -> float:
        """The link went down after this time: how long to leave the peer alone."""
        if lasted_s >= GOOD_S:
            self._cut_offs = 0
        self._short_ends = self._short_ends + 1 if lasted_s < SHORT_S else 0
        return self._pause_s(self._short_ends - _FREE_SHORT_ENDS) if self._short_ends > _FREE_SHORT_ENDS else 0.0

    @staticmethod
    def _pause_s(times: int) -> float:
        return float(min(FIRST_PAUSE_S * 2.0 ** min(times - 1, 10), MOST_PAUSE_S))
