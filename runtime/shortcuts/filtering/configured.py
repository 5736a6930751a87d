"""The shortcuts that a configuration's section ``filter`` asks for."""

from __future__ import annotations

from runtime.config.tree import FilterSection
from runtime.shortcuts.base import Shortcut
from runtime.shortcuts.filtering.differencing import Differencing
from runtime.shortcuts.filtering.features import Differencer
from runtime.workloads.base import Workload


def filters_of(config: FilterSection, workload: Workload, moves: bool) -> tuple[Shortcut, ...]:
    """New shortcuts for one run of a device; none where the filter is off. ``moves``: whether answers move on."""
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
            moves=moves,
        ),
    )
