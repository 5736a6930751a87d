"""How a benchmark's process ends."""

from __future__ import annotations

import sys
from collections.abc import Callable

from controller.errors import MecpilotError


def exit_code(name: str, run: Callable[[], None]) -> int:
    """Run a benchmark; an error that its user caused becomes one line and its exit code."""
    try:
        run()
    except MecpilotError as error:
        print(f"{name}: {error}", file=sys.stderr)
        return error.exit_code
    return 0
