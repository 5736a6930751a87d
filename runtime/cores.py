"""The number of cores that this process may use."""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import cache
from pathlib import Path

from controller.errors import UsageError

_CGROUP = Path("/sys/fs/cgroup")


def usable_cores(cgroup: Path = _CGROUP) -> int:
    """Cores of the process's affinity, or fewer where its control group has a quota of time; at least 1."""
    allowed = len(os.sched_getaffinity(0))
    return max(1, min(allowed, int(_quota(cgroup) or allowed)))


@cache
def _quota(cgroup: Path) -> float | None:
    """Cores that the quota comes to, None without one; read once. Version 2 of control groups first, then version 1."""
    texts = _read(cgroup / "cpu.max") or [
        *_read(cgroup / "cpu" / "cpu.cfs_quota_us"),
        *_read(cgroup / "cpu" / "cpu.cfs_period_us"),
    ]
    try:
        quota, period = map(int, texts)
    except ValueError:  # "max", or no such files
        return None
    return quota / period if quota > 0 and period > 0 else None


def _read(file: Path) -> list[str]:
    try:
        return file.read_text().split()
    except OSError:
        return []


def thread_count(wanted: int | str, log: Callable[[str], None], cores: int | None = None) -> int:
    """The number of threads to compute on: a number, or "auto" for all cores that this process may use.

    More threads than cores would only take turns: one line says so, and there are as many as cores. UsageError for
    anything but a number from 1 on or "auto".
    """
    usable = usable_cores() if cores is None else cores
    if wanted == "auto":
        return usable
    try:
        count = int(wanted)
    except ValueError:
        count = 0
    if count < 1:
        raise UsageError(f"got {wanted!r} threads; expected a number from 1 on, or auto")
    if count > usable:
        log(f"--threads {count}: this process may use {usable} cores (affinity and control group); it uses {usable}")
    return min(count, usable)
