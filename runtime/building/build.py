"""Write a bundle: the recorded predictions and the manifest, beside the weights that training wrote."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from runtime.building.measure import MeasuredModel, file_info
from runtime.building.split_frames import RECORDED_SPLITS
from runtime.bundles.manifest import FORMAT_VERSION, MANIFEST_FILE, Manifest, PayloadInfo, encode_manifest
from runtime.bundles.recorded import PayloadBytes, PayloadKey, Recorded, save_recorded
from runtime.files.atomic import write_whole
from runtime.workloads.base import Workload, stream_score


def write_bundle(
    directory: Path, workload: Workload, measured: Sequence[MeasuredModel], image_bytes: dict[str, PayloadBytes]
) -> Manifest:
    """Write recorded predictions and manifest into the directory that holds the weights; returns the manifest.

    `image_bytes` is the result of `measure_images`.
    """
    payload_bytes = {split: _all_payloads(measured, split, images) for split, images in image_bytes.items()}
    recorded = {}
    base_rows: list[int] = []
    for model in measured:
        offset = len(base_rows)
        base_rows += [offset + row for row in model.base_rows]
    for split in RECORDED_SPLITS:
        path = directory / f"recorded_{split}.safetensors"
        table = _concatenate([model.tables[split] for model in measured])
        if stream_score(workload) is not None:  # still images need only the mean and the spread
            table = replace(table, payload_bytes=payload_bytes[split])
        save_recorded(path, table, base_rows)
        recorded[str(split)] = file_info(path)
    frame = workload.sample(0)[0]
    manifest = Manifest(
        format_version=FORMAT_VERSION,
        workload=workload.name,
        resolutions_px=workload.resolutions_px,
        input_shapes={px: workload.resize(frame, px).shape for px in workload.resolutions_px},
        image_codecs=workload.image_codecs,
        tensor_codecs=workload.tensor_codecs,
        sample_counts={split: table.score.shape[1] for split, table in measured[0].tables.items()},
        models=tuple(model.info for model in measured),
        variants=tuple(variant for model in measured for variant in model.variants),
        payloads=tuple(_summary(key, found) for key, found in payload_bytes["validation"].items()),
        recorded=recorded,
        training={model.info.name: model.training for model in measured},
        frame_strides=workload.frame_strides,
    )
    write_whole(directory / MANIFEST_FILE, encode_manifest(manifest), "bundle", "choose another --out")
    return manifest


def _all_payloads(measured: Sequence[MeasuredModel], split: str, images: PayloadBytes) -> PayloadBytes:
    """Payload bytes of a split in the order of the manifest: per model and resolution, images before tensors."""
    everything: PayloadBytes = {}
    for model in measured:
        own = {(model.info.name, *key[1:]): sizes for key, sizes in images.items()} | model.tensor_bytes[split]
        everything |= {key: own[key] for key in sorted(own, key=lambda key: -key[1])}  # a stable sort
    return everything


def _summary(key: PayloadKey, found: NDArray[np.int32]) -> PayloadInfo:
    return PayloadInfo(*key, round(float(np.mean(found)), 2), round(float(np.std(found)), 2))


def _concatenate(tables: Sequence[Recorded]) -> Recorded:
    labels = [table.label for table in tables if table.label is not None]
    lagged = [table.lagged for table in tables if table.lagged is not None]
    return Recorded(
        np.concatenate([table.score for table in tables]),
        np.concatenate([table.confidence for table in tables]),
        np.concatenate(labels) if labels else None,
        np.concatenate(lagged, axis=1) if lagged else None,
    )
