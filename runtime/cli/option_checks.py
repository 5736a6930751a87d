"""Which numbers can no option mean? Those that are not finite, negative counts, and what no machine could do.

``typer`` accepts inf and nan where a float is expected, and integers of any size. Options state tighter limits
themselves; these hold for every option of every command.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

from controller.errors import UsageError

#: Seeds, counts and frame numbers: what every library behind the options accepts.
MAX_INT = 2**31 - 1
MAX_FLOAT = 1e9
#: Times that may be infinite: "for ever".
ENDLESS = frozenset({"source_retry"})


def check_numbers(options: Mapping[str, object]) -> None:
    """UsageError for the first number, by parameter name, that no option can mean."""
    for name, value in options.items():
        for number in value if isinstance(value, list | tuple) else [value]:
            if isinstance(number, bool):
                continue
            if isinstance(number, int) and not 0 <= number <= MAX_INT:
                raise _refused(name, number, f"a whole number from 0 to {MAX_INT}")
            if name in ENDLESS and number == math.inf:
                continue
            if isinstance(number, float) and not (math.isfinite(number) and abs(number) <= MAX_FLOAT):
                raise _refused(name, number, f"a finite number up to {MAX_FLOAT:g}")


def _refused(name: str, number: float, expected: str) -> UsageError:
    return UsageError(f"--{name.removesuffix('_').replace('_', '-')} {number}; expected {expected}")
