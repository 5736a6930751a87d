"""Runs a shadow (``controller.shadow``) beside a device that serves: within a time budget, and with a line per
minute.

A shadow must not cost frames. It decides after the frame was carried out or sent, and takes at most ``MOST_FRAC`` of
one core on average: frames that would take more are left out, and counted. One that fails is logged and asked no
more.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import numpy as np

from controller.controllers.base import Controller
from controller.records import Outcome, SystemState
from controller.shadow import Shadow
from runtime.observe.oversight import shadow_text

#: Share of the time that the candidate may take, and how much of it may be saved up, in seconds.
MOST_FRAC, MOST_SAVED_S = 0.05, 0.05
EVERY_S = 60.0


class BoundedShadow:
    """Owns a shadow, its time budget, and when it was last heard of."""

    def __init__(
        self, shadow: Shadow, log: Callable[[str], None], clock: Callable[[], float] = time.perf_counter
    ) -> None:
        self._shadow, self._log, self._clock = shadow, log, clock
        self._saved_s, self._refilled_s = MOST_SAVED_S, clock()
        self._begin()

    def restart(self, candidate: Controller | None) -> None:
        """Begin anew, beside another active controller: what was seen beside the one before would be mixed with what
        is seen now. ``candidate``: in place of the one so far; None keeps that one. The time budget stays as it is."""
        if self._shadow.decisions:
            self._log(f"shadow begins anew; so far {shadow_text(self._shadow.notes())}")
        self._shadow.restart(candidate)
        self._begin()

    def _begin(self) -> None:
        self._said_s = self._clock()
        self._took_s = 0.0
        self._left_out = 0
        self._failure = ""

    def look(self, state: SystemState, row: int) -> None:
        """Let the candidate decide a state (1,) for which ``row`` was decided, if there is time for it."""
        began_s = self._clock()
        self._saved_s = min(self._saved_s + MOST_FRAC * (began_s - self._refilled_s), MOST_SAVED_S)
        self._refilled_s = began_s
        if self._failure or self._saved_s <= 0.0:
            self._left_out += 1
            return
        try:
            self._shadow.look(state, np.array([row]))
        except Exception as error:  # noqa: BLE001 - a candidate is not trusted: it must not end a device
            self._failure = f"{type(error).__name__}: {error}"
            self._log(f"shadow {self._shadow.name} failed: {self._failure}; it is asked no more")
        now_s = self._clock()
        self._took_s += now_s - began_s
        self._saved_s -= now_s - began_s
        if now_s - self._said_s >= EVERY_S:
            self._said_s = now_s
            self._log(f"shadow {shadow_text(self._shadow.notes())}")

    def ended(self, outcome: Outcome) -> None:
        """A frame of the device has ended."""
        self._shadow.ended(outcome.utility)

    def notes(self) -> dict[str, Any]:
        """Those of the shadow, and: decisions that were left out, microseconds per decision, why it failed."""
        notes = self._shadow.notes()
        decisions = notes["decisions"]
        return {
            **notes,
            "left_out": self._left_out,
            "decision_us": 1e6 * self._took_s / decisions if decisions else None,
            "failure": self._failure or None,
        }
