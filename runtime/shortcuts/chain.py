"""Asks the shortcuts of one device in order."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import TypeVar

from controller.reuse import Answers, PastAnswer, Reuse, in_time, is_new
from runtime.shortcuts.base import RUN, Context, Notes, Shortcut
from runtime.sources.frames import Frame
from runtime.workloads.types import Image

Result = TypeVar("Result")


class Chain:
    """Owns the answers that may be reused. The first shortcut that answers a frame counts, unless its answer would
    come after the frame's deadline.

    A shortcut that raises an error gives no answer, so the frame is decided. Each kind of error is logged once.
    """

    def __init__(
        self,
        members: Sequence[Shortcut],
        deadline_s: float,
        picture: Callable[[int], Image],
        log: Callable[[str], None] = lambda _: None,
    ) -> None:
        """``picture`` returns the picture of a sample, given ``Frame.source_index``; ``log`` takes a line of text."""
        self._members, self._deadline_s, self._picture, self._log = members, deadline_s, picture, log
        self._logged: set[tuple[str, str]] = set()  # member and kind of error
        self._blind = [member for member in members if not member.needs_picture]
        self._seeing = [member for member in members if member.needs_picture]
        self._answers = Answers()

    @property
    def needs_pictures(self) -> bool:
        """Whether any shortcut needs pictures, so that ``before_decision`` must be called."""
        return bool(self._seeing)

    def at_capture(self, frame: Frame, now_s: float) -> Reuse | None:
        """Ask the shortcuts that need no picture, for a frame that was just captured or still waits."""
        return self._ask(self._blind, frame, now_s)

    def before_decision(self, frame: Frame, now_s: float, slowdown: float = 1.0) -> Reuse | None:
        """Ask the shortcuts that need the picture. ``slowdown``: see ``Context``."""
        return self._ask(self._seeing, frame, now_s, slowdown)

    def decided(self, frame: int, stride: int) -> None:
        """See ``Shortcut.decided``."""
        for member in self._members:
            self._guarded(member, partial(member.decided, frame, stride))

    def answered(self, answer: PastAnswer) -> None:
        """See ``Shortcut.answered``."""
        self._answers.add(answer)
        for member in self._members:
            self._guarded(member, partial(member.answered, answer))

    def motion(self, frame: int) -> float:
        """See ``Shortcut.motion``; of the first member that knows it."""
        for member in self._seeing:
            found = self._guarded(member, partial(_number, member.motion, frame))
            if found is not None and found >= 0.0:
                return found
        return math.nan

    def notes(self) -> dict[str, Notes]:
        """Figures of the members that have some, by their names; see ``Shortcut.notes``."""
        found = {member.name: self._guarded(member, member.notes) for member in self._members if member.name}
        return {name: notes for name, notes in found.items() if notes}

    def _ask(self, members: Sequence[Shortcut], frame: Frame, now_s: float, slowdown: float = 1.0) -> Reuse | None:
        newest = self._newest(frame, now_s) if members is self._seeing else None
        slack_s = frame.captured_s + self._deadline_s - now_s
        context = Context(now_s, self._answers, partial(self._picture, frame.source_index), newest, slack_s, slowdown)
        for member in members:
            if (reuse := self._guarded(member, partial(self._answer_of, member, frame, context))) is not None:
                if reuse is RUN:
                    return None
                if reuse.answer is not None and is_new(reuse.reason, reuse.answer.frame, frame.index):
                    self._answers.add(PastAnswer(frame.index, now_s, reuse.answer.prediction))
                return reuse
        return None

    def _newest(self, frame: Frame, now_s: float) -> PastAnswer | None:
        newest = self._answers.newest_at(now_s)
        if newest is None or not in_time(max(newest.out_s - frame.captured_s, 0.0), self._deadline_s):
            return None
        return newest

    def _answer_of(self, member: Shortcut, frame: Frame, context: Context) -> Reuse | None:
        reuse = member.try_answer(frame, context)
        if reuse is RUN:
            return reuse
        if reuse is None or not in_time(reuse.latency_s(frame.captured_s), self._deadline_s):
            return None
        return reuse

    def _guarded(self, member: Shortcut, call: Callable[[], Result]) -> Result | None:
        """What a call of a member's code returns; None if it raises an error."""
        try:
            return call()
        except Exception as error:  # noqa: BLE001 - a device goes on: the frame is decided
            name, kind = type(member).__name__, type(error).__name__
            if (name, kind) not in self._logged:
                self._logged.add((name, kind))
                self._log(f"shortcut {name} failed: {kind}: {error}; frames are decided without it while it fails")
            return None


def _number(function: Callable[[int], float], frame: int) -> float:
    return float(function(frame))
