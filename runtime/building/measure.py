"""Measure a trained model for a bundle: answers of every variant, calibrated confidence, payload bytes, layer costs.

Everything is measured on the stored weights, on the validation and the test split. Nothing is chosen on the test split:
the temperatures of the confidence are fitted on the validation split.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from runtime.building.payload_sizes import measure_tensors, payload_splits
from runtime.building.split_frames import RECORDED_SPLITS, first_frames
from runtime.building.variants import Key, Outputs, VariantRows, answers_of, recorded_of, run_variants
from runtime.bundles.manifest import LOSSLESS, ExitInfo, FileInfo, ModelInfo, StageInfo, VariantInfo
from runtime.bundles.recorded import PayloadBytes, Recorded
from runtime.bundles.weights import load_for_inference
from runtime.models.describe import describe_layers
from runtime.models.stages import BranchyModel
from runtime.workloads.base import Workload
from runtime.workloads.inputs import model_input
from runtime.workloads.types import Split

_TEMPERATURES = np.geomspace(0.25, 4.0, 81)


@dataclass(frozen=True)
class TrainedModel:
    """A model whose weights are written into the directory of the bundle."""

    name: str
    family: str
    file_name: str
    exit_after: tuple[int, ...]
    training: dict[str, Any]


@dataclass(frozen=True)
class MeasuredModel:
    """The part of a bundle that describes one model. Row i of every table belongs to `variants[i]`."""

    info: ModelInfo
    variants: tuple[VariantInfo, ...]
    base_rows: tuple[int, ...]  # row of each variant's exact variant within this model
    training: dict[str, Any]
    tables: dict[str, Recorded]  # per split
    tensor_bytes: dict[str, PayloadBytes]  # per split


def measure_model(
    directory: Path,
    workload: Workload,
    trained: TrainedModel,
    max_samples: int | None = None,
    advance: Callable[[str], None] = lambda _: None,
) -> MeasuredModel:
    """Measure one model whose weights are in `directory`.

    `max_samples` limits each split, for a quick test. `advance` is called with the name of each step before it,
    `measurement_steps` times in all.
    """
    data = {split: first_frames(workload, split, max_samples) for split in RECORDED_SPLITS}
    truths = {split: part.truths() for split, part in data.items()}
    path = directory / trained.file_name
    model = load_for_inference(path, workload.build, trained.family, trained.exit_after)
    outputs: dict[Split, dict[int, dict[Key, Outputs]]] = {split: {} for split in data}
    tensor_bytes: dict[str, PayloadBytes] = {str(split): {} for split in payload_splits(workload)}
    for px in workload.resolutions_px:
        for split in data:
            advance(f"{px} px, {split}")
            outputs[split][px] = run_variants(model, workload, data[split].batches(px))
        advance(f"{px} px, payloads")
        for split in payload_splits(workload):
            tensor_bytes[split] |= measure_tensors(trained.name, model, workload, data[split].batches(px), px)
    temperatures = [
        _calibrate(
            workload, {px: by_key[e, 0, LOSSLESS] for px, by_key in outputs["validation"].items()}, truths["validation"]
        )
        for e in range(len(trained.exit_after))
    ]
    rows = VariantRows(trained.name, workload, truths, temperatures)
    for px in workload.resolutions_px:
        rows.add(px, {split: outputs[split][px] for split in outputs})
    examples = {
        px: model_input(workload, model, next(data["validation"].batches(px))[:1]) for px in workload.resolutions_px
    }
    return MeasuredModel(
        info=_describe(trained, model, file_info(path), examples, temperatures),
        variants=tuple(rows.variants),
        base_rows=tuple(rows.base_rows),
        training=trained.training,
        tables={str(split): recorded_of(answers) for split, answers in rows.answers.items()},
        tensor_bytes=tensor_bytes,
    )


def measurement_steps(workload: Workload) -> int:
    """Number of times that `measure_model` calls `advance`."""
    return len(workload.resolutions_px) * (len(RECORDED_SPLITS) + 1)


def _calibrate(workload: Workload, exact: dict[int, Outputs], truths: Sequence[Any]) -> float:
    """The temperature of one exit that minimises the log loss of confidence against score, over all resolutions."""
    scores = np.concatenate([answers_of(workload, out, px, truths, 1.0).score for px, out in exact.items()])

    def log_loss(temperature: float) -> float:
        confidence = [workload.confidence(out, temperature) for out in exact.values()]
        p = np.clip(np.concatenate(confidence), 1e-6, 1 - 1e-6)
        return float(-(scores * np.log(p) + (1 - scores) * np.log(1 - p)).mean())

    return round(float(min(_TEMPERATURES, key=log_loss)), 4)


def _describe(
    trained: TrainedModel,
    model: BranchyModel,
    file: FileInfo,
    examples: dict[int, torch.Tensor],
    temperatures: Sequence[float],
) -> ModelInfo:
    layers = {px: describe_layers(model, example) for px, example in examples.items()}
    stages = tuple(
        StageInfo(
            {px: sum(layer.macs for layer in of.stages[i]) for px, of in layers.items()},
            {px: of.stage_shapes[i] for px, of in layers.items()},
        )
        for i in range(len(model.stages))
    )
    exits = tuple(
        ExitInfo(after, {px: sum(layer.macs for layer in of.exits[e]) for px, of in layers.items()}, temperature)
        for e, (after, temperature) in enumerate(zip(model.exit_after, temperatures, strict=True))
    )
    parameters = sum(parameter.numel() for parameter in model.parameters())
    return ModelInfo(trained.name, trained.family, file, parameters, stages, exits)


def file_info(path: Path) -> FileInfo:
    """Name, digest and size of a file."""
    data = path.read_bytes()
    return FileInfo(path.name, hashlib.sha256(data).hexdigest(), len(data))
