"""The privacy switch as a constraint on decisions: what is forbidden is no candidate, so nobody can choose it."""

from __future__ import annotations

import numpy as np

from controller.costs import CostTable
from controller.errors import UsageError
from runtime.config.sections.device import PrivacySection

#: Controllers that only ever send whole images.
_RAW_UPLOADERS = ("mec-only", "jpeg-offload")


def may_run(controller: str, privacy: PrivacySection) -> bool:
    """Whether the named controller has a decision left that it could choose."""
    return not (privacy.no_raw_upload and controller in _RAW_UPLOADERS)


def check_controller(name: str, privacy: PrivacySection) -> None:
    """UsageError for a controller that privacy leaves no decision."""
    if not may_run(name, privacy):
        raise UsageError(f"controller {name} only sends images, which --no-raw-upload forbids; choose another one")


def allowed(costs: CostTable, privacy: PrivacySection) -> CostTable:
    """The rows of a table that the privacy section allows.

    Take this before candidates are chosen or a decision is pinned; every controller and the fallback then obey. With
    ``no_raw_upload`` a row computes at least one stage on the device: partition point 1 or more, or device-only.
    UsageError when nothing is left.
    """
    if not privacy.no_raw_upload:
        return costs
    rows = np.flatnonzero(~costs.space.full_offload)
    if not len(rows):
        raise UsageError("every decision of the bundle sends the image, which --no-raw-upload forbids; choose another")
    return costs.take(rows)


def privacy_notes(privacy: PrivacySection) -> tuple[str, ...]:
    """What a reader of figures must know about the decisions that were left out."""
    return ("no_raw_upload: no decision sends an image",) if privacy.no_raw_upload else ()
