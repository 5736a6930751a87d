"""Work on a large batch, spread over threads: compiled code runs without the interpreter's lock.

Environments do not depend on each other, so the results are the same whatever the number of threads.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from typing import Any

from envs.twin.state import Environment, part_of
from envs.twin.tables import TwinTables
from runtime.cores import usable_cores

#: Environments that are worth a thread: a fifth of a millisecond.
_LEAST = 512


def over_threads(
    work: Callable[..., None], t: TwinTables, batch: Environment, *arrays: Any, least: int = _LEAST
) -> None:
    """``work(t, batch, *arrays)``, in parts of ``least`` or more; arrays have an element for each environment."""
    count = len(batch.state)
    if count < 2 * least:
        work(t, batch, *arrays)
        return
    spread(lambda part: work(t, part_of(batch, part), *(a[part] for a in arrays)), count, least)


def spread(work: Callable[[slice], None], count: int, least: int) -> None:
    """``work(part)`` for parts of ``least`` or more of so many pieces, all of them together."""
    parts = max(min(threads(), count // least), 1)
    slices = [slice(count * i // parts, count * (i + 1) // parts) for i in range(parts)]
    if parts == 1:
        work(slices[0])
        return
    pool = _pool(os.getpid(), parts)
    for done in [pool.submit(work, part) for part in slices]:
        done.result()


def threads() -> int:
    """OMP_NUM_THREADS, or the cores that the process may use."""
    given = os.environ.get("OMP_NUM_THREADS", "")
    return int(given) if given.isdigit() and int(given) > 0 else usable_cores()


@cache
def _pool(process: int, parts: int) -> ThreadPoolExecutor:
    """Threads do not survive a fork, so every process has its own."""
    return ThreadPoolExecutor(parts, "twin")
