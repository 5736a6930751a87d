"""What a process uses, from /proc, and how that changes."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from runtime.testbed.soak.trend import Trend, trend

MB = 1e6
#: A process settles in this share of its samples: caches fill, the heap finds its size.
_SETTLING_FRAC = 0.25
#: What may come on top at any time, and what may be added in each hour. A leak exceeds both.
BOUNDS = {"memory_mb": (3.0, 2.0), "descriptors": (3.0, 2.0), "threads": (2.0, 1.0)}


@dataclass(frozen=True)
class Sample:
    """What a process used at one time."""

    at_s: float  # of the monotonic clock
    memory_mb: float  # anonymous memory, resident: the heap, without the pages of files
    descriptors: int
    threads: int


def sample(pid: int, at_s: float) -> Sample | None:
    """What a process uses now; None when it has ended."""
    try:
        status = Path(f"/proc/{pid}/status").read_text()
        descriptors = len(os.listdir(f"/proc/{pid}/fd"))
    except OSError:
        return None
    found = dict(re.findall(r"^(RssAnon|Threads):\s+(\d+)", status, re.M))
    if len(found) < 2:  # a zombie has no memory
        return None
    return Sample(at_s, int(found["RssAnon"]) * 1024 / MB, descriptors, int(found["Threads"]))


def trends(samples: Sequence[Sample]) -> dict[str, Trend]:
    """The trend of each figure after the process has settled; empty when there are too few samples."""
    settled = samples[int(len(samples) * _SETTLING_FRAC) :]
    times = [one.at_s for one in settled]
    found = {name: trend(times, [getattr(one, name) for one in settled]) for name in BOUNDS}
    return {name: one for name, one in found.items() if one is not None}


def write_samples(path: Path, samples: Mapping[str, Sequence[Sequence[Sample]]]) -> None:
    """A CSV with a line for each sample; ``samples`` are by process and life."""
    lines = ["process,life,at_s,memory_mb,descriptors,threads"]
    for name, lives in samples.items():
        for number, life in enumerate(lives, 1):
            lines += [f"{name},{number},{s.at_s:.1f},{s.memory_mb:.3f},{s.descriptors},{s.threads}" for s in life]
    path.write_text("\n".join(lines) + "\n")


def leaks(found: dict[str, Trend]) -> list[str]:
    """Names of the figures that grow beyond their bounds."""
    return [name for name, one in found.items() if one.grows_beyond(*BOUNDS[name])]
