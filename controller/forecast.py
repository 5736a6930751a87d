"""The contract of a forecast: what an answer becomes at a later frame, and which object each of its items is.

A workload may offer a forecaster (``runtime.workloads.base.Task.forecaster``). It is fed every computed answer, in the
order in which answers come out. ``controller.reuse.PastAnswer.at`` is the one place where a forecast is applied.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol


class Shown(NamedTuple):
    """A prediction as it stands for a frame."""

    prediction: Any
    track_ids: tuple[int, ...] | None = None  # one for each item of the prediction, in its order; None: not tracked


class Forecast(Protocol):
    """What was known when one answer came out. It never changes, so answers that are kept stay what they were."""

    @property
    def track_ids(self) -> tuple[int, ...]:
        """The objects of the answer itself, in the order of its items."""
        ...

    @property
    def speed(self) -> float | None:
        """Mean speed of the objects, in sizes of the object (of boxes: its height) per frame; None: not yet known."""
        ...

    def at(self, frame: int) -> Shown:
        """The prediction for a later frame."""
        ...


class Forecaster(Protocol):
    """Owns what the answers of one run have shown so far."""

    def add(self, frame: int, prediction: Any) -> Forecast | None:
        """Learn from the answer to the whole picture of a frame. None for an answer to an older frame than the last
        one: it comes too late to change anything that is shown, because the answer to the newest frame counts
        (``Answers.newest_at``)."""
        ...

    def add_part(self, frame: int, prediction: Any, kept: Sequence[int]) -> Forecast | None:
        """The same from an answer to a part of the picture. Its last items were not seen there but are of an earlier
        answer, moved on; ``kept``: the objects that they are."""
        ...
