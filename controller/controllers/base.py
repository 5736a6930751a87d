"""The contract of a controller: it turns a SystemState into rows of a DecisionSpace."""

from __future__ import annotations

from typing import Protocol

from controller.records import Bools, Ints, SystemState


class Controller(Protocol):
    """Decides frame by frame. A controller with memory keeps one memory per row of the batch."""

    name: str

    def reset(self, rows: Bools) -> None:
        """Forget the past of the given rows (B,): an episode starts there."""

    def decide(self, state: SystemState) -> Ints:
        """(B,) indices into the DecisionSpace that the controller was made for."""
