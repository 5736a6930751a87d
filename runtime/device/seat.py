"""The seat of the controller: who decides can change between two frames.

The device's loop asks the seat, which asks the controller in it. Another thread may put a new controller down
(``offer``); it takes the seat at the next decision, so that no frame sees half a change. The seat also logs what a
guard says, and keeps the counts of guards that have left it.
"""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from controller.controllers.base import Controller
from controller.guard.guard import Guard
from controller.records import Bools, Ints, SystemState


class Offer(NamedTuple):
    """A new controller, a line for the log when it takes the seat, and what else happens then."""

    controller: Controller
    line: str
    seated: Callable[[], None] | None = None


class Seat:
    """A controller of one state at a time, that owns the one in the seat. ``offer`` is safe on any thread."""

    def __init__(self, controller: Controller, log: Callable[[str], None]) -> None:
        self._controller, self._log = controller, log
        self.name = controller.name
        self._offers: deque[Offer] = deque(maxlen=1)  # the newest counts
        self._earlier: dict[str, float] = defaultdict(float)  # counts of guards that have left
        self.changes = 0

    def reset(self, rows: Bools) -> None:
        self._controller.reset(rows)

    def offer(self, offer: Offer) -> None:
        """Let this controller decide from the next frame on."""
        self._offers.append(offer)

    def decide(self, state: SystemState) -> Ints:
        """(1,) row."""
        if self._offers:
            self._change(self._offers.popleft())
        rows = self._controller.decide(state)
        if isinstance(self._controller, Guard):
            for line in self._controller.take_lines():
                self._log(line)
        return rows

    def guard_notes(self) -> dict[str, float] | None:
        """Counts of all guards that sat here; None if none does."""
        if not isinstance(self._controller, Guard):
            return None
        return {name: count + self._earlier[name] for name, count in self._controller.notes().items()}

    def _change(self, offer: Offer) -> None:
        if isinstance(self._controller, Guard):
            for name, count in self._controller.notes().items():
                self._earlier[name] += count
        self._controller = offer.controller
        self._controller.reset(np.ones(1, dtype=bool))
        self.changes += 1
        self._log(offer.line)
        if offer.seated is not None:
            offer.seated()
