"""When a device says why no MEC answers."""

from __future__ import annotations

from runtime.link.link_watch import REPORT_EVERY_S, Counts, LinkWatch
from runtime.protocol.device_actions import LinkState


class Watched:
    """A link whose reasons come as the test gives them."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.reasons: list[str] = []
        self.counts = Counts()
        self.watch = LinkWatch("tcp://m:1", self.counts, self._reason, self.lines.append, 0.0)
        self.watch.on_change(LinkState.UP, "welcomed", 0.1)

    def _reason(self) -> str:
        return self.reasons.pop(0) if self.reasons else ""

    def report(self, *times_s: float) -> None:
        for now_s in times_s:
            self.watch.report(now_s)


def test_a_link_that_is_lost_has_its_reason_within_two_seconds_and_then_once_a_minute() -> None:
    link = Watched()
    link.watch.on_change(LinkState.DOWN, "nothing heard", 10.0)
    link.reasons = ["", "its key is not listed"]
    link.report(10.5, 10.6, 10.9)
    assert link.counts.trouble == "its key is not listed"
    link.report(11.0, 11.5, 12.0, 30.0)
    assert link.lines[2:] == ["the MEC at tcp://m:1 has not answered (its key is not listed): answering locally"]
    link.reasons = ["connection refused"]
    link.report(11.0 + REPORT_EVERY_S)
    assert link.lines[-1] == "the MEC at tcp://m:1 has not answered for 61 s (connection refused): answering locally"


def test_a_reason_that_comes_after_its_line_is_still_known() -> None:
    link = Watched()
    link.watch.on_change(LinkState.DOWN, "nothing heard", 10.0)
    link.report(10.5, 13.0)
    assert link.lines[-1] == "the MEC at tcp://m:1 has not answered: answering locally"
    link.reasons = ["the name cannot be resolved"]
    link.report(14.0)
    assert link.counts.trouble == "the name cannot be resolved"


def test_the_reason_of_one_outage_is_not_that_of_the_next() -> None:
    link = Watched()
    link.watch.on_change(LinkState.DOWN, "nothing heard", 10.0)
    link.report(10.5)  # asked, and not known yet
    link.watch.on_change(LinkState.UP, "welcomed", 10.6)
    link.reasons = ["of the first outage", "of the second"]
    link.report(10.7, 20.0)
    link.watch.on_change(LinkState.DOWN, "nothing heard", 30.0)
    link.report(30.5, 31.0)
    assert link.counts.trouble == "of the second"
