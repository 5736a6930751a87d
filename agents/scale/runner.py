"""What carries out the pieces of a job: this process, worker processes (``processes``), or a Ray cluster (``cluster``).

A runner yields results in any order; ``fan_out`` puts them in the order of the pieces, keeps them, and shows progress.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Protocol

from agents.scale.pieces import Job, carried_out, decoded, encoded
from runtime.cores import usable_cores

#: How often a piece is tried again when its worker died: more deaths are the piece's fault.
RETRIES = 2


Told = Callable[[int, int], None]  # called with a piece's number, and how much of it is done in all


class Runner(Protocol):
    """Carries out pieces."""

    def run(self, job: Job, pieces: Sequence[bytes], reached: Told) -> Iterator[tuple[int, bytes]]:
        """Number and encoded result of each piece, as they come. FailureError when a piece cannot be carried out."""
        ...


class Keeps(Protocol):
    """Keeps encoded results of finished pieces by key."""

    def get(self, key: str) -> bytes | None: ...

    def put(self, key: str, result: bytes) -> None: ...


class Here:
    """Carries out one piece after the other in this process."""

    def run(self, job: Job, pieces: Sequence[bytes], reached: Told) -> Iterator[tuple[int, bytes]]:
        for number, own in enumerate(pieces):
            yield number, carried_out(job, own, lambda done, number=number: reached(number, done))  # type: ignore[misc]


@contextmanager
def workers(jobs: int | None = None, ray: str | None = None, *, worth_it: bool = True) -> Iterator[Runner]:
    """The runner that ``--jobs`` and ``--ray`` ask for.

    ``worth_it``: whether the work takes longer than to start processes; unless ``jobs`` is given, this process does the
    rest. UsageError or FailureError for a cluster that cannot be used.
    """
    if ray is not None:
        from agents.scale.cluster import Cluster

        with Cluster(ray, jobs) as cluster:
            yield cluster
        return
    count = jobs or (usable_cores() if worth_it else 1)
    if count == 1:
        yield Here()
        return
    from agents.scale.processes import Processes

    with Processes(count) as processes:
        yield processes


def fan_out(
    runner: Runner,
    job: Job,
    pieces: Sequence[Any],
    sizes: Sequence[int] | None = None,
    progress: Callable[[int], None] = lambda _: None,
    kept: Keeps | None = None,
) -> list[Any]:
    """The results of all pieces, in their order.

    ``progress`` is called with what was done since the last call; a whole piece is its size (default: 1). What ``kept``
    holds is not computed again; what is computed is added to it.
    """
    shown = _Shown(sizes or [1] * len(pieces), progress)
    owns = [encoded(piece) for piece in pieces]
    keys = [job.key(own) for own in owns] if kept else []
    results = {number: found for number, key in enumerate(keys) if kept and (found := kept.get(key)) is not None}
    for number in results:
        shown.whole(number)
    left = [number for number in range(len(pieces)) if number not in results]
    for index, result in runner.run(job, [owns[n] for n in left], lambda index, done: shown.reached(left[index], done)):
        number = left[index]
        results[number] = result
        if kept:
            kept.put(keys[number], result)
        shown.whole(number)
    return [decoded(results[number]) for number in range(len(pieces))]


class _Shown:
    """How much of each piece was shown: less again when its worker died."""

    def __init__(self, sizes: Sequence[int], progress: Callable[[int], None]) -> None:
        self._sizes, self._progress = sizes, progress
        self._done = [0] * len(sizes)

    def reached(self, number: int, done: int) -> None:
        done = min(done, self._sizes[number])
        self._progress(done - self._done[number])
        self._done[number] = done

    def whole(self, number: int) -> None:
        self.reached(number, self._sizes[number])
