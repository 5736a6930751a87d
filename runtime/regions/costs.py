"""Adds cropped rows to a cost table: decisions that run a part of the picture.

The bundle's decision space, which device and MEC compare at the handshake, has none: a crop only matters on the device,
which knows where the part lies. The MEC gets an image of the row's resolution, and is asked for ``Decision.whole``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from controller.costs import CostTable
from controller.errors import UsageError
from controller.records import NO_PAYLOAD, Decision
from controller.regions import check_crop
from controller.space import DecisionSpace
from runtime.bundles.bundle import Bundle
from runtime.codecs import get_codec
from runtime.codecs.streams import StreamCodec
from runtime.regions.finder import LOOK_S
from runtime.workloads.base import Workload


def crops_of(workload: Workload, share: float | None = None) -> tuple[float, ...]:
    """The crops of a workload, or the one that is named; UsageError for a workload without."""
    if workload.crops is None:
        raise UsageError(
            f"got crops with the workload {workload.name!r}, whose answers are no boxes of a stream; expected a "
            "workload with crops, such as campus, or --roi off"
        )
    return workload.crops.shares if share is None else (check_crop(share),)


def can_be_cropped(decision: Decision) -> bool:
    """Whether a part may be run in place of the whole picture: on the device alone, or sent as an image that refers to
    no other one."""
    if decision.gate or decision.crop:
        return False
    if decision.payload == NO_PAYLOAD:
        return True
    return decision.partition_point == 0 and not isinstance(get_codec(decision.payload), StreamCodec)


def with_crops(
    costs: CostTable, bundle: Bundle, shares: Sequence[float], *, forecast: bool, weighed: bool
) -> CostTable:
    """The rows of ``costs``, which are those of the bundle, and behind them those with each of the crops.

    Where a controller weighs them, they are those that were measured: UsageError if none was.
    """
    if not weighed:
        return with_unmeasured_crops(costs, shares)
    raise UsageError(
        f"got crops with the bundle {bundle.directory}, which does not say what they score; measure them with "
        "`mecpilot models add BUNDLE --roi --out DIRECTORY`, or pin a decision with a crop"
    )


def with_unmeasured_crops(costs: CostTable, shares: Sequence[float]) -> CostTable:
    """The rows of ``costs``, and behind them one with each crop for each that can have one.

    Scores and bytes are taken to be those of the whole picture: for pinned decisions, which nobody weighs.
    """
    decisions = costs.space.decisions
    found = [(row, share) for share in shares for row, d in enumerate(decisions) if can_be_cropped(d)]
    return extended(costs, found)


def extended(costs: CostTable, found: Sequence[tuple[int, float]]) -> CostTable:
    """The table with a row behind the others for each (row, crop)."""
    rows = np.concatenate((np.arange(len(costs)), [row for row, _ in found])).astype(np.int64)
    decisions = costs.space.decisions + tuple(replace(costs.space.decisions[row], crop=crop) for row, crop in found)
    look_s = np.where(np.arange(len(rows)) < len(costs), 0.0, LOOK_S)
    return CostTable(
        DecisionSpace(decisions, costs.space.stages_to_exit[rows], costs.space.variant[rows]),
        costs.accuracy[rows],
        costs.head_s[rows] + look_s,
        costs.payload_bytes[rows],
        costs.payload_std_bytes[rows],
        costs.mec_s[rows],
        costs.neighbour_mec_s,
        None if costs.lagged_accuracy is None else costs.lagged_accuracy[rows],
        None if costs.references is None else costs.references.take(rows),
    )
