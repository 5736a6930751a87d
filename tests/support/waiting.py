"""Waits for what happens in its own time, so that tests need no sleeps and no guesses at the speed of the machine."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")

#: What is certain to happen has happened after this, also on a loaded machine that is many times slower.
PATIENCE_S = 120.0


def wait_until(condition: Callable[[], T], what: str = "it", limit_s: float = PATIENCE_S) -> T:
    """What the condition returns as soon as that is true; AssertionError after the limit. The condition may assert."""
    end_s = time.monotonic() + limit_s
    while not (found := condition()):
        assert time.monotonic() < end_s, f"{what} did not happen within {limit_s:.0f} s"
        time.sleep(0.01)
    return found
