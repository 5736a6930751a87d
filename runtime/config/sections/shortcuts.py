"""Answers that stand for later frames: filter and cache."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from msgspec import Meta

from controller.cache.rules import CacheRules
from runtime.config.sections.fields import Amount, Distance, Section, Text, about
from runtime.config.sizes import bytes_of


class FilterSection(Section, frozen=True):
    """Frames that show nothing new are not run: an earlier answer stands for them. Device only."""

    mode: Annotated[
        Text,
        about(
            "off; auto: the threshold follows --filter-target; or a fixed threshold of the difference from 0 to 1, "
            "such as 0.01.",
            "--filter",
        ),
    ] = "off"
    target: Annotated[
        float,
        Meta(ge=0.5, le=0.999),
        about(
            "With auto: how well the answers of all frames shall agree with those that running every frame would give.",
            "--filter-target",
        ),
    ] = 0.95
    feature: Annotated[
        Literal["pixel", "area", "edge", "corner"],
        about("What is compared: pixels, the largest changed area, edges, or corners.", "--filter-feature"),
    ] = "pixel"
    max_age: Annotated[
        int, Meta(ge=1, le=10), about("Oldest answer that may stand for a frame, in frames.", "--filter-max-age")
    ] = 10

    empty: Annotated[
        Path | None,
        about(
            "File of `mecpilot models empty`, which knows frames that show nothing: their answer is that nothing is "
            "there. Default: none.",
            "--filter-empty",
            show="empty.safetensors",
        ),
    ] = None

    @property
    def is_on(self) -> bool:
        """Whether frames are filtered by their differences."""
        return self.mode != "off"

    @property
    def threshold(self) -> float | None:
        """The fixed threshold; None where it adapts, or where nothing is filtered."""
        return None if self.mode in ("off", "auto") else float(self.mode)


class CacheSection(Section, frozen=True):
    """Answers that stand for later pictures much like theirs (docs/cache.md). Device only."""

    size: Annotated[Text, about("Memory for answers, such as 32MB; 0: no cache.", "--cache")] = "0"
    agreement: Annotated[
        float,
        Meta(ge=0.5, le=1.0),
        about("Agreement of the cache's answers with those of a run that the threshold aims at.", "--cache-agreement"),
    ] = 0.95
    verify_frac: Annotated[
        float,
        Meta(ge=0.0, le=1.0),
        about("Share of the frames with a cached answer that are run all the same, to compare.", "--cache-verify"),
    ] = 0.02
    threshold: Annotated[
        Distance | None,
        about("Fixed largest distance between two pictures; default: adapts itself.", "--cache-threshold", show=0.1),
    ] = None
    ttl_s: Annotated[Amount, about("How long an answer is kept at most, in seconds.", "--cache-ttl-s")] = 600.0
    eviction: Annotated[
        Literal["gdsf", "lru", "w-tinylfu"], about("What goes when the memory is full.", "--cache-eviction")
    ] = "gdsf"

    @property
    def size_bytes(self) -> int:
        """0: no cache. UsageError when the size cannot be read."""
        return bytes_of(self.size)

    def rules(self) -> CacheRules:
        """The same as the record that the cache uses."""
        same = (self.agreement, self.verify_frac, self.threshold, self.ttl_s, self.eviction)
        return CacheRules(self.size_bytes, *same)
