"""How many requests a MEC computes together, learned from how long batches have taken.

Theory of operation. Requests of one kind (model, resolution, cut, exit) can go through the stages as one batch. It is
made of what waits when the MEC becomes free; nothing ever waits for a batch to fill. While a batch is computed the next
one gathers, so batches grow with the load by themselves.

Sizes are powers of two. So kernels and captured graphs (``runtime.inference.cuda_graphs``) are few, and each size is
run often enough to be measured. A size is chosen if it ends before the deadlines that it could make late
(``RequestQueue.alike``), and if a request takes clearly less time in it than in any smaller size. On a GPU that is
nearly always the largest; on a CPU a batch of large pictures leaves the caches and takes longer than its members do.

Sizes are tried in order, each once the smaller one was measured. Until then a batch is expected to take as long as its
members would at the smaller size. A size that was not run for long is tried again, because machines change.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field

#: Weight of the newest time of a size in the mean of those before.
_LEARN_FRAC = 0.2
#: A time counts for at most this many times the mean: one batch that waited, or in which a graph was captured, says
#: little about the next ones.
_MOST_TIMES = 2.0
#: The first run of a size builds its kernels, so its time is replaced by the second.
_TRIED = 2
#: Batches of a kind after which a size that was not run is tried again.
_STALE = 1000
#: Larger sizes are not tried where a size takes this much longer per request than a smaller one.
_HOPELESS = 1.1
#: A size is preferred to a smaller one if it takes at most this share of its time per request: times scatter, and
#: larger batches make their first requests wait.
_WORTH = 0.9


@dataclass(slots=True)
class _Size:
    """The time of one size."""

    mean_s: float = 0.0
    runs: int = 0
    last: int = 0  # number of the batch, over all sizes of the kind

    def add(self, took_s: float, number: int) -> None:
        self.runs = 1 if number - self.last > _STALE else self.runs + 1  # what is old counts no more
        self.last = number
        if self.runs <= _TRIED:
            self.mean_s = took_s
        else:
            self.mean_s += _LEARN_FRAC * (min(took_s, _MOST_TIMES * self.mean_s) - self.mean_s)


@dataclass(slots=True)
class _Kind:
    sizes: dict[int, _Size] = field(default_factory=dict)
    batches: int = 0

    def is_due(self, size: int) -> bool:
        known = self.sizes.get(size)
        return known is None or known.runs < _TRIED or self.batches - known.last > _STALE


class BatchTimes:
    """Owns the measured times of batches, by kind and size."""

    def __init__(self) -> None:
        self._kinds: dict[Hashable, _Kind] = {}

    def took(self, kind: Hashable, size: int, took_s: float) -> None:
        """Learn how long a batch took, decoding included."""
        known = self._kinds.setdefault(kind, _Kind())
        known.batches += 1
        known.sizes.setdefault(size, _Size()).add(took_s, known.batches)

    def expected_s(self, kind: Hashable, size: int) -> float | None:
        """Time of a batch in seconds: the mean of those measured, else that of the next smaller size in proportion;
        None if nothing is known."""
        known = self._kinds.get(kind, _Kind()).sizes
        measured = max((other for other in known if other <= size), default=None)
        return None if measured is None else known[measured].mean_s * size / measured

    def size(self, kind: Hashable, until_s: Sequence[float]) -> int:
        """How many requests to compute together, at most ``len(until_s) + 1``. ``until_s[i]`` is how long a batch of
        ``i + 2`` may take, in seconds; it must not increase with i."""
        known = self._kinds.get(kind)
        if known is None:
            return 1
        best, least_s = 1, float("inf")
        for size in (1 << power for power in range((len(until_s) + 1).bit_length())):
            expected_s = self.expected_s(kind, size)
            if expected_s is None or (size > 1 and expected_s > until_s[size - 2]):
                break
            if known.is_due(size):
                return size
            if expected_s > _HOPELESS * size * least_s:
                break
            if expected_s < _WORTH * size * least_s:
                best, least_s = size, expected_s / size
        return best
