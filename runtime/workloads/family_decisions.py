"""What a workload says about the legal decisions of one family of models, where they differ from the others'."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from controller.errors import UsageError

if TYPE_CHECKING:
    from runtime.workloads.base import Workload


@dataclass(frozen=True)
class FamilyDecisions:
    """The legal decisions of a family. None: as for every family of the workload."""

    resolutions_px: tuple[int, ...] | None = None  # some of the workload's
    image_codecs: tuple[str, ...] | None = None  # at partition point 0; (): no full offload
    tensor_codecs: Mapping[int, tuple[str, ...]] | None = None  # per later partition point; none where it is missing


def resolutions_of(workload: Workload, family: str) -> tuple[int, ...]:
    """The resolutions of a family in the workload's order; UsageError for one that the workload does not have."""
    own = _decisions(workload, family).resolutions_px
    if own is None:
        return workload.resolutions_px
    if not own or not set(own) <= set(workload.resolutions_px):
        raise UsageError(f"family {family!r} has the resolutions {own}; expected some of {workload.resolutions_px}")
    return tuple(px for px in workload.resolutions_px if px in own)


def codecs_at(workload: Workload, family: str, cut: int) -> tuple[str, ...]:
    """The codecs of a family's payloads at a partition point."""
    own = _decisions(workload, family)
    if cut == 0:
        return workload.image_codecs if own.image_codecs is None else own.image_codecs
    return workload.tensor_codecs if own.tensor_codecs is None else own.tensor_codecs.get(cut, ())


def _decisions(workload: Workload, family: str) -> FamilyDecisions:
    return workload.family_decisions.get(family, FamilyDecisions())
