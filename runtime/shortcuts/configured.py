"""The shortcuts that a configuration asks for, in the order in which they are asked."""

from __future__ import annotations

from collections.abc import Sequence

from runtime.config.sections.shortcuts import CacheSection, FilterSection
from runtime.emptiness.file import EmptyKnown
from runtime.shortcuts.base import Shortcut
from runtime.shortcuts.cache.shortcut import caches
from runtime.shortcuts.filtering.configured import filters_of
from runtime.workloads.base import Workload


def shortcuts_of(
    filter_: FilterSection,
    cache: CacheSection,
    workload: Workload,
    *,
    moves: bool,
    seed: int,
    empty: EmptyKnown | None = None,
    own: Sequence[Shortcut] = (),
) -> tuple[Shortcut, ...]:
    """New ones for one run of a device: filters, the user's ``own``, the cache. ``moves``: whether answers move on.
    ``empty``: what knows empty frames. ``seed``: of the frames with which the cache verifies itself."""
    return (*filters_of(filter_, workload, moves, empty), *own, *caches(cache, workload.score, seed))
