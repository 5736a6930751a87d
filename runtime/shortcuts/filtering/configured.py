"""The shortcuts that a configuration's section ``filter`` asks for."""

from __future__ import annotations

from runtime.config.tree import FilterSection
from runtime.shortcuts.base import Shortcut
from runtime.shortcuts.filtering.differencing import Differencing
from runtime.shortcuts.filtering.features import Differencer
from runtime.workloads.base import Workload


def filters_of(config: FilterSection, workload: Workload) -> tuple[Shortcut, ...]:
    """New shortcuts for one run of a device; none where the filter is off."""
    if not config.is_on:
        return ()
    differencer = Differencer(config.feature)
    return (
        Differencing(
            differencer,
            workload.score,
            threshold=config.threshold,
            target=config.target,
            most_age=config.max_age,
        ),
    )


def filter_notes(config: FilterSection) -> tuple[str, ...]:
    """What a reader of figures must know about the frames that were not run."""
    if not config.is_on:
        return ()
    how = f"target {config.target:g}" if config.threshold is None else f"threshold {config.threshold:g}"
    return (f"filter: frames that show nothing new are not run ({config.feature}, {how}, age up to {config.max_age})",)
