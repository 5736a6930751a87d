"""The account of a soak: every line of every outcome log, by the fault during which its frame was captured.

A device that ends in order has written exactly one outcome for each frame that it captured: its frame numbers are
0, 1, 2 and so on, each once, up to what the clock says. One that was killed has lost what it had not written yet, so of
its newest frames some may be missing; none may be there twice.

A controller that uses the MEC at all must have answers of it again and again: ``Account.unanswered`` looks for times
without any in which nothing was wrong.
"""

from __future__ import annotations

import bisect
import json
import math
from collections.abc import Iterable
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

from controller.records import NO_PAYLOAD, Status

#: A fault counts until so long after its end.
AFTER_S = 3.0
#: Of the newest frames of a killed device some may be missing: those in its queues, in flight, and in its log's queue.
UNWRITTEN = 64
#: From READY=1 to the first frame, plus how late a busy device is with its captures when it is told to end, at most.
SLACK_S = 4.0
#: Longest time without an answer of the MEC, not counting faults.
UNANSWERED_S = 30.0
#: Name of the time in which nothing was wrong.
QUIET = "none"


@dataclass
class Window:
    """One fault: when it was, whom it concerned, and what became of the frames of these devices."""

    fault: str
    concerns: frozenset[str]  # names of devices
    begin_s: float  # Unix time, as all times here
    end_s: float = math.inf
    frames: int = 0
    in_time: int = 0
    without_outcome: int = 0
    twice: int = 0
    back_s: dict[str, float] = field(default_factory=dict)  # by device: from the end to the next answer of the MEC

    def holds(self, device: str, at_s: float) -> bool:
        return device in self.concerns and self.begin_s <= at_s < self.end_s + AFTER_S


@dataclass
class Frames:
    """The frames of one life of a device."""

    device: str
    seen: set[int] = field(default_factory=set)
    first_s: float = math.nan  # when frame 0 was captured

    def missing(self, captured: int, was_killed: bool) -> list[int]:
        """Numbers of the frames that were captured and have no outcome. At least ``captured`` frames were."""
        end = max(captured, max(self.seen, default=-1) + 1) - (UNWRITTEN if was_killed else 0)
        return [frame for frame in range(end) if frame not in self.seen]


class Account:
    """Owns the windows of all faults, in order of time. ``fps`` is that of every device."""

    def __init__(self, fps: float) -> None:
        self._fps = fps
        self.quiet = Window(QUIET, frozenset(), -math.inf)
        self.windows: list[Window] = []
        self.torn = 0  # lines that a killed process left half written
        self._answers: dict[str, list[float]] = {}  # by device: Unix times of the answers of its MEC

    def begin(self, fault: str, concerns: Iterable[str], at_s: float) -> Window:
        """A fault begins. Set ``end_s`` when it ends."""
        self.windows.append(Window(fault, frozenset(concerns), at_s))
        return self.windows[-1]

    def is_quiet(self, at_s: float) -> bool:
        """Whether nothing is wrong at that time, later than the beginning of every fault."""
        return not self.windows or at_s >= self.windows[-1].end_s + AFTER_S

    def add(self, frames: Frames, line: bytes) -> None:
        """One line of the outcome log of that life."""
        try:
            outcome: dict[str, Any] = json.loads(line)
        except ValueError:
            self.torn += 1
            return
        number, captured_s = outcome["frame"], outcome["captured_at"]
        if math.isnan(frames.first_s):
            frames.first_s = captured_s - number / self._fps
        window = self._window(frames.device, captured_s)
        window.frames += 1
        window.twice += number in frames.seen
        frames.seen.add(number)
        window.in_time += Status(outcome["status"]).on_time
        self._note_return(frames.device, outcome, captured_s)

    def close(self, frames: Frames, *, was_killed: bool, worked_s: float = 0.0) -> None:
        """That life is over, and every line of it was added. It worked for ``worked_s`` seconds."""
        captured = int((worked_s - SLACK_S) * self._fps)
        for number in frames.missing(captured, was_killed):
            captured_s = frames.first_s + number / self._fps
            window = self._window(frames.device, captured_s) if frames.seen else self.quiet
            window.without_outcome += 1

    def unanswered(self, began_s: float, ended_s: float) -> dict[str, float]:
        """By device, the longest time without an answer of the MEC, if that is more than ``UNANSWERED_S``. Faults that
        concern the device are not counted. Empty where no device ever had one: its controller uses no MEC."""
        devices = sorted({device for window in self.windows for device in window.concerns} | set(self._answers))
        longest = {device: self._longest_wait_s(device, began_s, ended_s) for device in devices}
        return {device: wait_s for device, wait_s in longest.items() if self._answers and wait_s > UNANSWERED_S}

    @property
    def all(self) -> list[Window]:
        return [self.quiet, *self.windows]

    def _window(self, device: str, at_s: float) -> Window:
        newest = self._before(at_s)
        return newest if newest is not None and newest.holds(device, at_s) else self.quiet

    def _before(self, at_s: float) -> Window | None:
        """The newest window that had begun by then."""
        at = bisect.bisect_right(self.windows, at_s, key=lambda window: window.begin_s)
        return self.windows[at - 1] if at else None

    def _note_return(self, device: str, outcome: dict[str, Any], captured_s: float) -> None:
        if outcome["status"] != Status.OK or outcome["decision"]["payload"] == NO_PAYLOAD:
            return
        answered_s = captured_s + outcome["latency_ms"] / 1e3
        self._answers.setdefault(device, []).append(answered_s)
        window = self._before(answered_s)
        if window is not None and device in window.concerns and answered_s > window.end_s:
            window.back_s[device] = min(window.back_s.get(device, math.inf), answered_s - window.end_s)

    def _longest_wait_s(self, device: str, began_s: float, ended_s: float) -> float:
        times = [began_s, *sorted(self._answers.get(device, [])), ended_s]
        waits = ((begin_s, end_s) for begin_s, end_s in pairwise(times) if end_s - begin_s > UNANSWERED_S)
        return max((end_s - begin_s - self._faulty_s(device, begin_s, end_s) for begin_s, end_s in waits), default=0.0)

    def _faulty_s(self, device: str, begin_s: float, end_s: float) -> float:
        """How much of that time belongs to faults that concern the device; they do not overlap."""
        return sum(
            max(min(window.end_s, end_s) - max(window.begin_s, begin_s), 0.0)
            for window in self.windows
            if device in window.concerns
        )
