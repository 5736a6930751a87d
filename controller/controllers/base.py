"""What is a controller? Anything that turns a SystemState into rows of a DecisionSpace."""

from __future__ import annotations

from typing import Protocol

from controller.records import Bools, Ints, SystemState


class Controller(Protocol):
    """Decides frame by frame. A controller that remembers keeps one memory per row of the batch."""

    name: str

    def reset(self, rows: Bools) -> None:
        """Forget what was seen in the given rows (B,): an episode starts there."""

    def decide(self, state: SystemState) -> Ints:
        """(B,) indices into the DecisionSpace that the controller was made for."""
