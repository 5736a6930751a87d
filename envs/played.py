"""The samples that are played: what was recorded of them, and what input filter and cache see of their pictures."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from controller.costs import CostTable
from controller.errors import UsageError
from controller.records import Floats
from envs.techniques import Techniques
from envs.twin.caching import CacheTable, ShownSamples, shown_by
from envs.twin.filtering import FilterTable, differences
from envs.twin.shortcut import TableShortcut
from runtime.bundles.bundle import Bundle
from runtime.bundles.recorded import Recorded
from runtime.gating.calibration import Calibrations
from runtime.regions.scores import scores_of, with_crop_scores
from runtime.shortcuts.filtering.features import Differencer
from runtime.workloads.registry import get_workload, is_workload

#: Samples that are played: "validation" for learning, "test" for evaluation.
PlayedSplit = Literal["validation", "test"]


@dataclass(frozen=True)
class Pictures:
    """What techniques that look at pictures see; None where there is no such technique."""

    differences: Floats | None = None  # by which the filter knows what shows nothing new
    shown: ShownSamples | None = None  # by which the cache finds answers


NO_PICTURES = Pictures()


def recorded_with(bundle: Bundle, split: PlayedSplit, techniques: Techniques) -> Recorded:
    """What was recorded of the samples, as it counts with the techniques; UsageError where it was not recorded."""
    known = bundle.is_adopted or is_workload(bundle.workload)
    samples = bundle.work.recorded_samples(split) if known else None
    recorded = bundle.recorded(split) if samples is None else bundle.recorded(split).at(samples)
    if techniques.forecast:
        recorded = recorded.with_forecast()
    if recorded.lagged is None:  # samples that are no stream: the last answer says nothing of the next frame
        return recorded
    calibrations = Calibrations(bundle)
    recorded = calibrations.expected_scores(recorded)
    if techniques.crops and (scores := scores_of(bundle)) is not None:  # without them the cost table refuses crops
        recorded = with_crop_scores(recorded, scores, split, calibrations)
    return recorded


def check_played(
    workload: str, recorded: Recorded, techniques: Techniques, shortcuts: Sequence[TableShortcut] = ()
) -> None:
    """UsageError for a technique or shortcut that cannot be played with what was recorded."""
    if techniques.filter.empty is not None:
        raise UsageError(
            f"got --filter-empty {techniques.filter.empty} in a comparison, which plays whole frames without a camera; "
            "expected it on a device"
        )
    if techniques.filter.is_on and recorded.lagged is None:
        raise UsageError(
            f"got --filter {techniques.filter.mode} for {workload}, whose samples are no stream; expected the "
            "bundle of a video workload, such as campus, or --filter off"
        )
    if any(shortcut.needs_newest for shortcut in shortcuts) and recorded.lagged is None:
        raise UsageError(
            f"got shortcuts for {workload}, whose bundle has no scores of older answers; expected the bundle of "
            "a video workload, such as campus, or no shortcuts (a real device takes them with any workload)"
        )
    if techniques.cache.size_bytes and recorded.label is None:
        raise UsageError(
            f"got --cache for {workload}, whose bundle has no answers, only their scores; expected a bundle of "
            "class labels, such as garments, or no cache (a real device has one with any workload)"
        )


def pictures_of(
    bundle: Bundle, split: PlayedSplit, samples: int, techniques: Techniques, known: Pictures | None = None
) -> Pictures:
    """What the techniques see of so many samples. ``known``: of the same samples; it is not computed again."""
    known = known or NO_PICTURES
    frames = bundle.work if bundle.work.name == bundle.workload else get_workload(bundle.workload)
    found, shown = None, None
    if techniques.filter.is_on:
        found = known.differences
        if found is None:
            pictures = (frames.sample(index, split)[0] for index in range(samples))
            found = differences(Differencer(techniques.filter.feature), pictures)
    if techniques.cache.size_bytes:
        shown = known.shown or shown_by(bundle.work.sample(index, split) for index in range(samples))
    return Pictures(found, shown)


def shortcuts_of(
    pictures: Pictures, techniques: Techniques, costs: CostTable, recorded: Recorded, own: Sequence[TableShortcut]
) -> tuple[TableShortcut, ...]:
    """New shortcuts of a twin, in the order in which they are asked; ``own`` are the user's."""
    members = list(own)
    if pictures.differences is not None:
        parts = (techniques.filter, pictures.differences, costs, recorded)
        members.insert(0, FilterTable(*parts, moves=bool(techniques.forecast)))
    if pictures.shown is not None and recorded.label is not None:
        members.append(CacheTable(techniques.cache.rules(), pictures.shown, costs, recorded.label))
    return tuple(members)
