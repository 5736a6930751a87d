"""Adds cropped rows to a cost table: decisions that run a part of the picture.

The bundle's decision space, which device and MEC compare at the handshake, has none: a crop only matters on the device,
which knows where the part lies. The MEC gets an image of the row's resolution, and is asked for ``Decision.whole``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from controller.costs import CostTable
from controller.crops import Crops, cycle
from controller.errors import UsageError
from controller.gates import PathSpace
from controller.records import NO_PAYLOAD, Decision, Floats, Ints
from controller.regions import check_crop
from runtime.bundles.bundle import Bundle
from runtime.codecs import get_codec
from runtime.codecs.streams import StreamCodec
from runtime.regions.finder import LOOK_S
from runtime.regions.scores import Bytes, CropScores, scores_of
from runtime.workloads.base import Workload


def crops_of(workload: Workload, share: float | None = None) -> tuple[float, ...]:
    """The crops of a workload, or the one that is named; UsageError for a workload without."""
    if workload.crops is None:
        raise UsageError(
            f"got crops with the workload {workload.name!r}, whose answers are no boxes of a stream; expected a "
            "workload with crops, such as campus, or --roi off"
        )
    return workload.crops.shares if share is None else (check_crop(share),)


def crops_if(roi: bool, workload: Workload) -> tuple[float, ...]:
    """The crops of a workload, if regions of interest are wanted; UsageError for a workload without."""
    return crops_of(workload) if roi else ()


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
    scores = scores_of(bundle)
    if scores is None:
        raise UsageError(
            f"got crops with the bundle {bundle.directory}, which does not say what they score; measure them with "
            "`mecpilot models add BUNDLE --roi --out DIRECTORY`, or pin a decision with a crop"
        )
    return _with_measured_crops(costs, scores, shares, len(bundle.manifest.variants), forecast)


def _with_measured_crops(
    costs: CostTable, scores: CropScores, shares: Sequence[float], variants: int, forecast: bool
) -> CostTable:
    """The rows of ``costs``, and behind them those that were measured, with what they score at each age.

    The recorded answers at the ages of a row stand behind the ``variants`` of the bundle (``with_crop_scores``).
    """
    decisions = costs.space.decisions
    cropped = [(row, share) for share in shares for row, d in enumerate(decisions) if can_be_cropped(d)]
    places = [scores.row(replace(decisions[row], crop=share)) for row, share in cropped]
    found = [pair for pair, place in zip(cropped, places, strict=True) if place is not None]
    measured = np.array([place for place in places if place is not None], np.int64)
    if not found:
        raise UsageError(f"{scores.path} has no score of crops {shares}; expected some of {scores.header.shares}")
    table, ages = extended(costs, found), np.array(scores.header.ages, np.int64)
    validation = scores.tables("validation")
    aged = validation.mean_scores(forecast)[measured]  # (K, A, L)
    rows = np.arange(len(costs), len(table))
    sizes = _sizes(scores, validation.sent_bytes, [table.space.decisions[row] for row in rows])  # (K, A, S)
    crops = Crops(rows, ages, _paths(table, rows, aged, sizes, variants + measured * len(ages)))
    steady = np.stack([aged[k, cycle(ages, int(table.space.frame_stride[row]))].mean(0) for k, row in enumerate(rows)])
    lagged = table.lagged_accuracy
    return replace(
        table,
        accuracy=np.concatenate((costs.accuracy, steady[:, 0])),
        lagged_accuracy=None if lagged is None else np.concatenate((lagged[: len(costs)], steady[:, 1:])),
        payload_bytes=np.concatenate((costs.payload_bytes, sizes.mean(axis=(1, 2)))),
        payload_std_bytes=np.concatenate((costs.payload_std_bytes, sizes.std(axis=(1, 2)))),
        crops=crops,
    )


def _sizes(scores: CropScores, sent: Bytes, decisions: Sequence[Decision]) -> Floats:
    """(K, A, S) bytes that each decision sends; 0 where the device answers alone. ``sent``: of each crop (n, A, S)."""
    nothing = np.zeros(sent.shape[1:])
    return np.stack([nothing if d.payload == NO_PAYLOAD else sent[scores.sent(d)] for d in decisions])


def _paths(table: CostTable, rows: Ints, aged: Floats, sizes: Floats, first_variant: Ints) -> CostTable:
    """(K * A) the cropped rows at each age."""
    ages = aged.shape[1]
    each = np.repeat(rows, ages)
    variant = (first_variant[:, None] + np.arange(ages)).ravel()
    decisions = tuple(table.space.decisions[row] for row in each)
    flat = aged.reshape(len(each), -1)
    return CostTable(
        PathSpace(decisions, table.space.stages_to_exit[each], variant),
        flat[:, 0],
        table.head_s[each],
        sizes.mean(axis=2).ravel(),
        sizes.std(axis=2).ravel(),
        table.mec_s[each],
        table.neighbour_mec_s,
        None if table.lagged_accuracy is None else flat[:, 1:],
        sealed=table.sealed,
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
    rows = np.array([row for row, _ in found], np.int64)
    decisions = tuple(replace(costs.space.decisions[row], crop=crop) for row, crop in found)
    return costs.extended(rows, decisions, costs.head_s[rows] + LOOK_S)
