"""Techniques that are switched on beside the choice of decisions, and how an experiment leaves them out."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, replace

from runtime.config.sections.shortcuts import CacheSection, FilterSection
from runtime.config.technique_notes import technique_notes
from runtime.config.tree import DEFAULTS

#: Names of the input filter and the cache where techniques are left out; the others are those of
#: ``controller.techniques``.
FILTER, CACHE = "filter", "cache"


@dataclass(frozen=True)
class Techniques:
    """What a device has beside its decisions, as in its configuration; by default nothing."""

    gates: tuple[float, ...] | None = None  # that decisions may carry; None: those of the bundle
    forecast: bool | None = None  # answers that stand for later frames move on; None: if the bundle has their scores
    filter: FilterSection = DEFAULTS.filter  # frames that show nothing new are not run
    cache: CacheSection = DEFAULTS.cache  # answers that stand for later pictures much like theirs
    crops: tuple[float, ...] = ()  # that decisions may have: a part of the picture is run

    @property
    def notes(self) -> tuple[str, ...]:
        """What a reader of figures must know."""
        return technique_notes(self.gates, self.forecast, self.filter, self.cache, self.crops)

    @property
    def before_decisions(self) -> tuple[str, ...]:
        """The names of those that answer frames before a decision."""
        return (*((FILTER,) if self.filter.is_on else ()), *((CACHE,) if self.cache.size_bytes else ()))

    def without(self, names: Collection[str]) -> Techniques:
        """What is left without the named techniques; forecasts and crops belong to the
        application-oriented ones."""
        left = self
        if "early-exit" in names:
            left = replace(left, gates=())
        if "application" in names:
            left = replace(left, forecast=False, crops=())
        if FILTER in names:
            left = replace(left, filter=DEFAULTS.filter)
        if CACHE in names:
            left = replace(left, cache=DEFAULTS.cache)
        return left
