"""Write a bundle: the recorded predictions and the manifest, beside the weights that training wrote."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from controller.records import PayloadKey
from runtime.building.measure import MeasuredModel, file_info
from runtime.building.payload_sizes import PayloadSizes, Sizes, steady_row
from runtime.building.split_frames import RECORDED_SPLITS
from runtime.bundles.manifest import FORMAT_VERSION, MANIFEST_FILE, Manifest, default_objects, encode_manifest
from runtime.bundles.recorded import Recorded, save_recorded
from runtime.codecs.streams import RECORDED_AGES
from runtime.files.atomic import write_whole
from runtime.workloads.adopted.files import carried
from runtime.workloads.base import Workload, stream_score
from runtime.workloads.family_decisions import codecs_at, resolutions_of


def write_bundle(
    directory: Path, workload: Workload, measured: Sequence[MeasuredModel], images: PayloadSizes
) -> Manifest:
    """Write recorded predictions and manifest into the directory that holds the weights; returns the manifest.

    `images` is the result of `measure_images`.
    """
    sizes, keys = _all_sizes(workload, measured, images)
    base_rows: list[int] = []
    for model in measured:
        offset = len(base_rows)
        base_rows += [offset + row for row in model.base_rows]
    recorded = {}
    for split in RECORDED_SPLITS:
        path = directory / f"recorded_{split}.safetensors"
        table = _concatenate([model.tables[split] for model in measured])
        if stream_score(workload) is not None:  # still images need only the mean and the spread
            table = _with_payloads(table, sizes.samples[split], keys)
        save_recorded(path, table, base_rows)
        recorded[str(split)] = file_info(path)
    frame = workload.sample(0)[0]
    payloads = tuple(default_objects(sizes.infos[key]) for key in keys)
    adoption, truth = carried(workload, directory)
    written = Manifest(
        format_version=FORMAT_VERSION,
        workload=workload.name,
        resolutions_px=workload.resolutions_px,
        input_shapes={px: workload.resize(frame, px).shape for px in workload.resolutions_px},
        image_codecs=workload.image_codecs,
        tensor_codecs=workload.tensor_codecs,
        sample_counts={split: table.score.shape[1] for split, table in measured[0].tables.items()},
        models=tuple(default_objects(model.info) for model in measured),
        variants=tuple(variant for model in measured for variant in model.variants),
        payloads=payloads,
        recorded=recorded,
        training={model.info.name: model.training for model in measured},
        frame_strides=workload.frame_strides,
        reference_ages=RECORDED_AGES if any(payload.mean_bytes_by_age for payload in payloads) else (),
        adoption=adoption,
        truth=truth,
    )
    manifest = default_objects(written)
    write_whole(directory / MANIFEST_FILE, encode_manifest(manifest), "bundle", "choose another --out")
    return manifest


def _all_sizes(
    workload: Workload, measured: Sequence[MeasuredModel], images: PayloadSizes
) -> tuple[PayloadSizes, list[PayloadKey]]:
    """The sizes of all payloads, and their order in the manifest: model, resolution, cut, codec."""
    sizes = PayloadSizes()
    keys: list[PayloadKey] = []
    for model in measured:
        sizes = sizes.joined(images.of_model(model.info.name)).joined(model.tensor_sizes)
        family = model.info.family
        for px in resolutions_of(workload, family):
            for cut in range(len(model.info.stages)):
                keys += [(model.info.name, px, cut, codec) for codec in codecs_at(workload, family, cut)]
    return sizes, keys


def _with_payloads(table: Recorded, sizes: Sizes, keys: Sequence[PayloadKey]) -> Recorded:
    steady = {key: sizes[key][steady_row(sizes[key])] for key in keys}
    return replace(table, payload_bytes=steady, aged_bytes={key: sizes[key] for key in keys if len(sizes[key]) > 1})


def _concatenate(tables: Sequence[Recorded]) -> Recorded:
    labels = [table.label for table in tables if table.label is not None]
    lagged = [table.lagged for table in tables if table.lagged is not None]
    # All models or none: the models of an older bundle have no scores of forecasts.
    forecast = [table.lagged_forecast for table in tables if table.lagged_forecast is not None]
    speed = [table.tracked_speed for table in tables if table.tracked_speed is not None]
    return Recorded(
        np.concatenate([table.score for table in tables]),
        np.concatenate([table.confidence for table in tables]),
        np.concatenate(labels) if labels else None,
        np.concatenate(lagged, axis=1) if lagged else None,
        lagged_forecast=np.concatenate(forecast, axis=1) if len(forecast) == len(tables) else None,
        tracked_speed=np.concatenate(speed) if len(speed) == len(tables) else None,
    )
