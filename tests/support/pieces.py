"""Pieces of work for tests of ``agents.scale``, which worker processes import too."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from controller.errors import UsageError

Reached = Callable[[int], None]


def squared(common: Any, own: Any, reached: Reached) -> Any:
    """The square of a number, with the process that computed it."""
    reached(1)
    return {"square": own * own + common["plus"], "process": os.getpid()}


def lingering(common: Any, own: Any, reached: Reached) -> Any:
    """Writes down its process, and does not end before there is a file ``go``."""
    folder = Path(common["folder"])
    with (folder / f"piece{own}").open("a") as file:
        file.write(f"{os.getpid()}\n")
    while not (folder / "go").exists():
        time.sleep(0.02)
    return own * own


def deadly(common: Any, own: Any, reached: Reached) -> Any:
    """Ends its process."""
    os.kill(os.getpid(), 9)


def refusing(common: Any, own: Any, reached: Reached) -> Any:
    raise UsageError("got nothing; expected something")


def wrong(common: Any, own: Any, reached: Reached) -> Any:
    return 1 // (own - own)
