"""What a reader of figures must know about the techniques that were switched on."""

from __future__ import annotations

from collections.abc import Sequence

from runtime.config.sections.shortcuts import CacheSection, FilterSection
from runtime.config.tree import DEFAULTS


def technique_notes(
    gates: Sequence[float] | None = None,
    forecast: bool | None = None,
    filter_: FilterSection = DEFAULTS.filter,
    cache: CacheSection = DEFAULTS.cache,
    crops: Sequence[float] = (),
) -> tuple[str, ...]:
    """One line for each; none for those that are off."""
    notes = []
    if gates:
        values = ", ".join(f"{gate:g}" for gate in gates)
        notes.append(f"gate: exits on the way to the cut may answer, if their confidence reaches {values}")
    if forecast:
        notes.append("forecast: boxes of frames that are not run move on")
    if crops:
        values = ", ".join(f"{crop:g}" for crop in crops)
        notes.append(f"roi: a part of the picture may be run where something moves, {values} of its width")
    if filter_.is_on:
        how = f"target {filter_.target:g}" if filter_.threshold is None else f"threshold {filter_.threshold:g}"
        about = f"{filter_.feature}, {how}, age up to {filter_.max_age}"
        notes.append(f"filter: frames that show nothing new are not run ({about})")
    if filter_.empty is not None:
        notes.append(f"filter: frames that {filter_.empty} knows as empty are not run")
    if cache.size_bytes:
        notes.append(f"cache: answers stand for later pictures much like theirs ({cache.size})")
    return tuple(notes)
