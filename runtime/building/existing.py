"""The measurements of an existing bundle, as if they had just been made, and further ones joined to them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from controller.errors import UsageError
from controller.records import PayloadKey
from runtime.building.codec_fitting import Codecs
from runtime.building.measure import MeasuredModel
from runtime.building.payload_sizes import PayloadSizes, Sizes
from runtime.bundles.bundle import Bundle
from runtime.bundles.manifest import LOSSLESS, ModelInfo, VariantInfo
from runtime.bundles.recorded import Recorded
from runtime.workloads.base import Workload, stream_score
from runtime.workloads.family_decisions import codecs_at, resolutions_of

_Order = tuple[int, int, bool, int, str]


def known_models(bundle: Bundle) -> list[MeasuredModel]:
    """The models of a bundle with everything that was recorded of them."""
    manifest = bundle.manifest
    recorded = {split: bundle.recorded(split) for split in manifest.recorded}
    found = []
    for info in manifest.models:
        rows = np.array([row for row, variant in enumerate(manifest.variants) if variant.model == info.name])
        tables = {split: _take(table, rows) for split, table in recorded.items()}
        variants = tuple(manifest.variants[row] for row in rows)
        tensors = _sizes(bundle, recorded, [key for key in _keys(bundle) if key[0] == info.name and key[2] > 0])
        found.append(MeasuredModel(info, variants, manifest.training[info.name], tables, tensors))
    return found


def known_images(bundle: Bundle) -> PayloadSizes:
    """The sizes of images, which are the same for all models; the model in the keys is ""."""
    of: dict[tuple[int, str], PayloadKey] = {}
    for key in _keys(bundle):
        if key[2] == 0:
            of.setdefault((key[1], key[3]), key)
    recorded = {split: bundle.recorded(split) for split in bundle.manifest.recorded}
    return _sizes(bundle, recorded, list(of.values())).of_model("")


def added_codecs(bundle: Bundle, info: ModelInfo, workload: Workload) -> Codecs:
    """The codecs that a workload offers for a model and its bundle lacks, per cut; only cuts with any.

    UsageError when the workload no longer offers what the bundle has.
    """
    added = {}
    if bundle.manifest.resolutions_of(info) != resolutions_of(workload, info.family):
        raise _changed(bundle, info, "resolutions", bundle.manifest.resolutions_of(info))
    for cut in range(len(info.stages)):
        known, offered = bundle.manifest.codecs_at(info, cut), codecs_at(workload, info.family, cut)
        if missing := [codec for codec in known if codec not in offered]:
            raise _changed(bundle, info, f"codecs at cut {cut}", missing)
        if more := tuple(codec for codec in offered if codec not in known):
            added[cut] = more
    return added


def check_same_samples(bundle: Bundle, workload: Workload) -> None:
    """UsageError unless the workload has the samples, resolutions and frame strides of the bundle."""
    manifest = bundle.manifest
    frame = workload.sample(0)[0]
    shapes = {px: workload.resize(frame, px).shape for px in workload.resolutions_px}
    counts = {split: min(workload.sample_count(split), count) for split, count in manifest.sample_counts.items()}  # type: ignore[arg-type]
    streams = (manifest.frame_strides != (1,)) == (stream_score(workload) is not None)
    if shapes != manifest.input_shapes or counts != manifest.sample_counts or not streams:
        raise UsageError(
            f"the workload {workload.name!r} has other samples or resolutions than the bundle {bundle.directory}; "
            "expected the same: train a new bundle with `mecpilot models train`"
        )


def with_added(old: MeasuredModel, added: MeasuredModel) -> MeasuredModel:
    """One model with the recorded answers of the bundle, and those of further codecs in their places."""
    more = np.array([row for row, variant in enumerate(added.variants) if variant.codec != LOSSLESS], np.int64)
    variants = (*old.variants, *(added.variants[row] for row in more))
    px_order = list(dict.fromkeys(variant.resolution_px for variant in old.variants))
    order = np.array(sorted(range(len(variants)), key=lambda row: _place(variants[row], px_order)))
    tables = {
        split: _take(_stacked(table, _take(added.tables[split], more)), order) for split, table in old.tables.items()
    }
    return replace(
        old,
        info=added.info,
        variants=tuple(variants[row] for row in order),
        tables=tables,
        tensor_sizes=old.tensor_sizes.joined(added.tensor_sizes),
    )


def _place(variant: VariantInfo, px_order: list[int]) -> _Order:
    """The order of `runtime.building.variants.VariantRows`."""
    v = variant
    return px_order.index(v.resolution_px), v.exit_branch, v.codec != LOSSLESS, v.partition_point, v.codec


def _keys(bundle: Bundle) -> list[PayloadKey]:
    return [(p.model, p.resolution_px, p.partition_point, p.codec) for p in bundle.manifest.payloads]


def _sizes(bundle: Bundle, recorded: dict[str, Recorded], keys: list[PayloadKey]) -> PayloadSizes:
    infos = dict(zip(_keys(bundle), bundle.manifest.payloads, strict=True))
    samples = {split: _of_samples(table, keys) for split, table in recorded.items() if table.payload_bytes is not None}
    return PayloadSizes(samples, {key: infos[key] for key in keys})


def _of_samples(recorded: Recorded, keys: list[PayloadKey]) -> Sizes:
    plain, aged = recorded.payload_bytes or {}, recorded.aged_bytes or {}
    return {key: aged[key] if key in aged else plain[key][None] for key in keys}


def _take(recorded: Recorded, rows: np.ndarray) -> Recorded:
    """Some variants; without the sizes of payloads."""
    return Recorded(
        recorded.score[rows],
        recorded.confidence[rows],
        None if recorded.label is None else recorded.label[rows],
        None if recorded.lagged is None else recorded.lagged[:, rows],
        lagged_forecast=None if recorded.lagged_forecast is None else recorded.lagged_forecast[:, rows],
        tracked_speed=None if recorded.tracked_speed is None else recorded.tracked_speed[rows],
    )


def _stacked(some: Recorded, others: Recorded) -> Recorded:
    """The variants of both."""
    label, lagged, forecast, speed = None, None, None, None
    if some.label is not None and others.label is not None:
        label = np.concatenate((some.label, others.label))
    if some.lagged is not None and others.lagged is not None:
        lagged = np.concatenate((some.lagged, others.lagged), axis=1)
    if some.lagged_forecast is not None and others.lagged_forecast is not None:
        forecast = np.concatenate((some.lagged_forecast, others.lagged_forecast), axis=1)
    if some.tracked_speed is not None and others.tracked_speed is not None:
        speed = np.concatenate((some.tracked_speed, others.tracked_speed))
    return Recorded(
        np.concatenate((some.score, others.score)),
        np.concatenate((some.confidence, others.confidence)),
        label,
        lagged,
        lagged_forecast=forecast,
        tracked_speed=speed,
    )


def _changed(bundle: Bundle, info: ModelInfo, what: str, known: object) -> UsageError:
    return UsageError(
        f"the workload {bundle.workload!r} no longer offers the {what} of model {info.name!r} in {bundle.directory} "
        f"({known}); expected these and more: train a new bundle with `mecpilot models train`"
    )
