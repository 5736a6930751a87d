"""Stops a training on a signal, at a point where its state can be saved."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from runtime.cli.signals import ENDING, next_signal_ends


class Interrupted(Exception):
    """The training was asked to stop."""

    def __init__(self, number: int) -> None:
        super().__init__(f"stopped by {signal.Signals(number).name}")
        self.exit_code = 128 + number


class Interruption:
    """The first signal that came, if any."""

    def __init__(self) -> None:
        self._number = 0

    def check(self) -> None:
        """Raise Interrupted if a signal came."""
        if self._number:
            raise Interrupted(self._number)

    def ask(self, number: int, _: FrameType | None) -> None:
        """Signal handler: remember the signal. The next one ends the process at once."""
        self._number = number
        next_signal_ends()


@contextmanager
def interruptible() -> Iterator[Interruption]:
    """Within the block, the first signal only sets a flag, which ``Interruption.check`` reads."""
    interruption = Interruption()
    before = {number: signal.getsignal(number) for number in ENDING}
    before = {number: handler for number, handler in before.items() if handler is not signal.SIG_IGN}  # as under nohup
    for number in before:
        signal.signal(number, interruption.ask)
    try:
        yield interruption
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
