"""Reused answers: an answer that was computed for an earlier frame stands for a frame that is not run.

There is one concept with several reasons (``REASONS``): a decision's frame stride covers the frame, an input filter
finds that the picture did not change, a cache knows the answer. Device, twin, metrics and log treat all of them alike.

This file holds what device and twin share: the record, the answers to choose from, and the rules. A rule works on
numbers and on arrays (B,) alike. The device asks it in a shortcut (``runtime.shortcuts``) with what it measured, the
twin in a table shortcut (``envs.twin.reuse``) with what was recorded.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeVar

from controller.forecast import Forecast, Forecaster, Shown
from controller.records import STATUSES, Bools, Floats, Ints, Status

#: Why an answer is reused.
REASONS = tuple(status for status in STATUSES if status.reused)
#: The newest answer that is out is always among the last 32: far more than a device has frames in flight.
_ANSWERS_KEPT = 32


class PastAnswer(NamedTuple):
    """An answer that was computed."""

    frame: int  # that it was computed for
    out_s: float  # when it was out, on the clock of whoever keeps it
    prediction: Any
    forecast: Forecast | None = None  # None: it stands for later frames as it is
    expected: float = 1.0  # score that answers of its decision are expected to have
    is_whole: bool = True  # its whole picture was run, not a part (``controller.regions``)

    @property
    def track_ids(self) -> tuple[int, ...] | None:
        """The objects of the answer itself; None where nobody tracks them."""
        return None if self.forecast is None else self.forecast.track_ids

    def at(self, frame: int) -> Shown:
        """What it says about a later frame: the one place where an answer moves on."""
        return Shown(self.prediction) if self.forecast is None else self.forecast.at(frame)


def past_answer(
    frame: int,
    out_s: float,
    prediction: Any,
    forecaster: Forecaster | None,
    expected: float = 1.0,
    kept: Sequence[int] | None = None,
) -> PastAnswer:
    """An answer that is out now. Answers are given to a forecaster in the order in which they come out.

    ``kept``: of an answer to a part of the picture, as in ``Forecaster.add_part``.
    """
    if forecaster is None:
        forecast = None
    elif kept is None:
        forecast = forecaster.add(frame, prediction)
    else:
        forecast = forecaster.add_part(frame, prediction, kept)
    return PastAnswer(frame, out_s, prediction, forecast, expected, kept is None)


@dataclass(frozen=True, slots=True)
class Reuse:
    """Which answer stands for a frame, and why."""

    reason: Status  # one of REASONS
    #: None before the first answer: the frame then has no prediction and scores 0. An answer that a shortcut knows by
    #: itself has this frame's number.
    answer: PastAnswer | None

    def shown(self, frame: int) -> Shown:
        """What stands for the frame. A cached answer stays as it is: it belongs to a picture that looks like this one,
        not to an earlier moment."""
        if self.answer is None:
            return Shown(None)
        return self.answer.at(frame) if self.reason.moves_on else Shown(self.answer.prediction)

    def latency_s(self, captured_s: float) -> float:
        """From the frame's capture until the answer stands for it: at once, unless it was out only later."""
        return 0.0 if self.answer is None else max(self.answer.out_s - captured_s, 0.0)


class Answers:
    """Owns the last answers of a device."""

    def __init__(self) -> None:
        self._last: deque[PastAnswer] = deque(maxlen=_ANSWERS_KEPT)

    def add(self, answer: PastAnswer) -> None:
        self._last.append(answer)

    def newest_at(self, at_s: float) -> PastAnswer | None:
        """Of the answers that were out, the one to the newest frame; None when none was."""
        out = [answer for answer in self._last if answer.out_s <= at_s]
        return max(out, key=lambda answer: answer.frame) if out else None


# Rules ------------------------------------------------------------------------------------------------------


Count = TypeVar("Count", int, Ints)


def next_run(decided: Count, stride: Count) -> Count:
    """First frame after ``decided`` that its stride does not cover; the frames between the two are skipped."""
    return decided + stride


def is_new(reason: Status, answered: int | None, frame: int) -> bool:
    """Whether a reused answer is news about its frame, which later frames may have, too: a shortcut knew it by itself,
    or it belongs to a picture that looks like this one."""
    return answered == frame or not reason.moves_on


def in_time(latency_s: Floats | float, deadline_s: Floats | float) -> Bools | bool:
    """Whether a reused answer may stand. One that would be late may not: the frame is decided instead."""
    return latency_s <= deadline_s
