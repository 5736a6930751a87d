"""How the cache of a device is set up."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class CacheRules:
    """How a cache is set up."""

    most_bytes: int
    agreement: float = 0.95  # with the answer of a run that the threshold aims at, on average
    verify_frac: float = 0.02  # of the frames with a cached answer that are run all the same; more at first
    threshold: float | None = None  # fixed largest distance, 0 to 2; None: it adapts itself
    ttl_s: float = 600.0  # how long an answer is kept
    eviction: Literal["gdsf", "lru", "w-tinylfu"] = "gdsf"
