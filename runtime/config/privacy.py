"""The privacy switch as a constraint on decisions: what is forbidden is no candidate, so nobody can choose it."""

from __future__ import annotations

import numpy as np

from controller.costs import CostTable
from controller.errors import UsageError
from runtime.config.tree import PrivacySection


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
