"""The number of cores that this process may use."""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import cache
from pathlib import Path

from controller.errors import UsageError

_CGROUP = Path("/sys/fs/cgroup")
_OWN = Path("/proc/self/cgroup")


def usable_cores(cgroup: Path = _CGROUP, own: Path = _OWN) -> int:
    """Cores of the process's affinity, or fewer where a control group that it is in has a quota of time; at least 1.

    In a container the group is the root of what is mounted; a service of systemd is in one further down.
    """
    allowed = len(os.sched_getaffinity(0))
    return max(1, int(min([allowed, *_quotas(cgroup, own)])))


@cache
def _quotas(cgroup: Path, own: Path) -> tuple[float, ...]:
    """Cores that each quota comes to, read once. Version 2 of control groups, then version 1."""
    groups = [(cgroup, "/")]
    for line in _text(own).splitlines():
        _, controllers, path = line.split(":", 2)
        if not controllers:
            groups.append((cgroup, path))
        elif "cpu" in controllers.split(","):
            groups += [(cgroup / "cpu", "/"), (cgroup / "cpu", path)]
    folders = {folder for mount, path in groups for folder in _upwards(mount, path)}
    return tuple(quota for folder in folders if (quota := _quota(folder)) is not None)


def _upwards(mount: Path, path: str) -> list[Path]:
    """The folder of a group, and those of all groups that it is in."""
    parts = Path(path.lstrip("/")).parts
    return [mount.joinpath(*parts[:count]) for count in range(len(parts) + 1)]


def _quota(folder: Path) -> float | None:
    """Cores that the quota of a group comes to; None without one."""
    texts = (
        _text(folder / "cpu.max") or f"{_text(folder / 'cpu.cfs_quota_us')} {_text(folder / 'cpu.cfs_period_us')}"
    ).split()
    try:
        quota, period = map(int, texts)
    except ValueError:  # "max", or no such files
        return None
    return quota / period if quota > 0 and period > 0 else None


def _text(file: Path) -> str:
    try:
        return file.read_text()
    except OSError:
        return ""


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
