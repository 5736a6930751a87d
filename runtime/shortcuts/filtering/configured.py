"""The shortcuts that a configuration's section ``filter`` asks for."""

from __future__ import annotations

from controller.errors import UsageError
from runtime.config.sections.shortcuts import FilterSection
from runtime.emptiness.file import EmptyKnown, load_empty
from runtime.shortcuts.base import Shortcut
from runtime.shortcuts.filtering.differencing import Differencing
from runtime.shortcuts.filtering.emptiness import Emptiness
from runtime.shortcuts.filtering.features import Differencer
from runtime.sources.window import Window
from runtime.workloads.base import Workload


def known_empty(config: FilterSection, workload: Workload, frame: tuple[int, ...]) -> EmptyKnown | None:
    """What knows empty frames, where the configuration names it; UsageError when it cannot be used with frames of this
    shape, (h, w[, 3])."""
    if config.empty is None:
        return None
    if workload.nothing() is None:
        raise UsageError(
            f"got --filter-empty {config.empty} for {workload.name}, whose frames are never empty; expected a workload "
            "of boxes, such as campus"
        )
    return load_empty(config.empty, workload.name, frame)


def check_window(empty: EmptyKnown | None, window: Window | None, frame: tuple[int, ...]) -> None:
    """UsageError where empty frames are known for another window than the one that counts."""
    played = window or Window(0, 0, frame[1], frame[0])
    if empty is not None and empty.window != played:
        raise UsageError(
            f"--filter-empty was made for --window {empty.window.text}, got {played.text}; expected the same window"
        )


def filters_of(
    config: FilterSection, workload: Workload, moves: bool, empty: EmptyKnown | None = None
) -> tuple[Shortcut, ...]:
    """New shortcuts for one run of a device; none where the filter is off. ``moves``: whether answers move on.
    ``empty``: what knows empty frames; it is asked first."""
    knowing = () if empty is None else (Emptiness(empty, workload),)
    return knowing + _by_differences(config, workload, moves)


def _by_differences(config: FilterSection, workload: Workload, moves: bool) -> tuple[Shortcut, ...]:
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
