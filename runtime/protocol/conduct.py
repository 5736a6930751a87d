"""Decides when a device disconnects from a misbehaving MEC, and how long it waits before it reconnects.

A MEC only answers: it sends one message for each of the device's, and a Bye. Four things lead to a disconnection: many
more messages than that, frequent protocol errors, several wrong replies in a row (each one costs a frame time), and
connections that the MEC ends as soon as it has accepted them. Each disconnection doubles the pause before the next
connection, up to ``MOST_PAUSE_S``. A link that has lasted ``GOOD_S`` resets the pause. No I/O and no clock here.
"""

from __future__ import annotations

#: Tolerated protocol errors: this rate per second, and this number in one burst.
FAULTS_PER_S = 20.0
#: Wrong replies in a row that lead to a disconnection. After the first time, one more is enough.
WRONG_REPLIES = 5
#: Tolerated messages beyond one answer to each message sent: per second, and in one burst. A MEC may answer twice, and
#: hellos over several connections may all be answered.
UNASKED_PER_S, UNASKED = 100.0, 64
#: A shorter link counts as short; ``_FREE_SHORT_ENDS`` of them in a row are tolerated.
SHORT_S = 1.2
_FREE_SHORT_ENDS = 3
#: A link that has lasted this long clears the record.
GOOD_S = 10.0
FIRST_PAUSE_S = 0.5
MOST_PAUSE_S = 30.0


def pause_s(times: int) -> float:
    """Pause after the offence with this number, from 1: it doubles each time."""
    return float(min(FIRST_PAUSE_S * 2.0 ** min(times - 1, 10), MOST_PAUSE_S))


class Conduct:
    """Owns the record of one MEC's misbehaviour."""

    def __init__(self) -> None:
        self._faults = 0.0
        self._fault_s = 0.0
        self._wrong_replies = 0
        self._unasked = 0.0
        self._received_s = 0.0
        self._short_ends = 0
        self._cut_offs = 0

    def on_sent(self) -> None:
        """A message was sent, so one answer is due."""
        self._unasked = max(self._unasked - 1.0, -UNASKED)

    def on_received(self, now_s: float) -> None:
        """A message, or undecodable bytes, came from the MEC."""
        if self._unasked > 0:
            self._unasked = max(self._unasked - UNASKED_PER_S * (now_s - self._received_s), 0.0)
        self._unasked += 1.0
        self._received_s = now_s

    def on_fault(self, now_s: float) -> None:
        """The MEC broke a rule of the protocol."""
        self._faults = max(self._faults - FAULTS_PER_S * (now_s - self._fault_s), 0.0) + 1.0
        self._fault_s = now_s

    def on_wrong_reply(self) -> None:
        """A reply was wrong."""
        self._wrong_replies += 1

    def on_good_reply(self) -> None:
        """A reply was right, as far as can be checked."""
        self._wrong_replies = 0

    @property
    def offence(self) -> str:
        """Why the device must disconnect now; empty when it need not."""
        if self._faults > FAULTS_PER_S:
            return "it broke the protocol too often"
        if self._wrong_replies >= WRONG_REPLIES:
            return f"{WRONG_REPLIES} replies in a row were wrong"
        if self._unasked > UNASKED:
            return f"it sent {UNASKED} unrequested messages"
        return ""

    def cut_off(self) -> float:
        """The device disconnected. Returns the pause before the next connection, in seconds."""
        self._cut_offs += 1
        self._faults = self._unasked = 0.0
        self._wrong_replies = min(self._wrong_replies, WRONG_REPLIES - 1)
        return pause_s(self._cut_offs + max(self._short_ends - _FREE_SHORT_ENDS, 0))

    def ended(self, lasted_s: float) -> float:
        """The MEC ended the link after this time. Returns the pause before the next connection, in seconds."""
        if lasted_s >= GOOD_S:
            self._cut_offs = 0
        self._short_ends = self._short_ends + 1 if lasted_s < SHORT_S else 0
        return pause_s(self._short_ends - _FREE_SHORT_ENDS) if self._short_ends > _FREE_SHORT_ENDS else 0.0
