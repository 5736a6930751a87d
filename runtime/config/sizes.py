"""Numbers of bytes as people write them: 64kB, 32MB, 1GB."""

from __future__ import annotations

import re

from controller.errors import UsageError

#: Below, there is no room for a few entries; above, no machine that this is made for has the memory.
LEAST_BYTES, MOST_BYTES = 64_000, 64_000_000_000
_FACTORS = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9}
_SIZE = re.compile(r"(\d{1,12}(?:\.\d{1,6})?)\s*([kmg]?)b?", re.IGNORECASE)


def bytes_of(text: str) -> int:
    """The number of bytes; 0 for "0". UsageError, which does not name the setting, for anything else."""
    match = _SIZE.fullmatch(text.strip())
    count = round(float(match[1]) * _FACTORS[match[2].lower()]) if match else -1
    if count and not LEAST_BYTES <= count <= MOST_BYTES:
        raise UsageError(f"{text!r}; expected a size from 64kB to 64GB, such as 32MB, or 0 for none")
    return count
