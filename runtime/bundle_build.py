"""How is a bundle made from trained weights? Measure everything once, on stored weights, and write it down.

For every model, resolution and exit: answers on the validation and the test split, without loss and after every lossy
payload at every cut; calibrated confidence; payload bytes. Test figures are written, never chosen on: temperatures
are fitted on the validation split.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from runtime.codecs import TENSOR_BITS, decode, dequantise, encode, quantise
from runtime.manifest import (
    EXACT,
    FORMAT_VERSION,
    MANIFEST_FILE,
    ExitInfo,
    FileInfo,
    Manifest,
    ModelInfo,
    PayloadInfo,
    StageInfo,
    VariantInfo,
    encode_manifest,
)
from runtime.models.describe import describe_layers
from runtime.models.stages import BranchyModel
from runtime.models.weights import load_for_inference
from runtime.recorded import Recorded, save_recorded
from runtime.workloads.base import Images, Split, Workload

RECORDED_SPLITS: tuple[Split, ...] = ("validation", "test")
BATCH = 250
LOSSLESS_IMAGE_CODECS = ("raw", "png")
_TEMPERATURES = np.geomspace(0.25, 4.0, 81)

Outputs = NDArray[np.floating[Any]]
Key = tuple[int, int, str]  # exit branch, partition point, codec ("exact" and 0 where nothing is lost)


@dataclass(frozen=True)
class TrainedModel:
    """Weights already written into the bundle's directory."""

    name: str
    family: str
    file_name: str
    exit_after: tuple[int, ...]
    training: dict[str, Any]


@dataclass(frozen=True)
class SplitData:
    """Frames of one split at every resolution, and their truths."""

    images: dict[int, Images]
    truths: list[Any]


def write_bundle(
    directory: Path,
    workload: Workload,
    models: Sequence[TrainedModel],
    max_samples: int | None = None,
    advance: Callable[[str], None] = lambda _: None,
) -> Manifest:
    """Measure the models in `directory` and write recorded predictions and manifest beside them.

    `max_samples` limits each split (a quick look); `advance` is told what was measured after each step.
    """
    data = {split: _read_split(workload, split, max_samples) for split in RECORDED_SPLITS}
    builder = _Builder(directory, workload, data, advance)
    for trained in models:
        builder.add(trained)
    return builder.finish()


def measurement_steps(workload: Workload, models: int) -> int:
    """How often `write_bundle` calls `advance`."""
    return models * len(workload.resolutions_px) * (len(RECORDED_SPLITS) + 1)


def _read_split(workload: Workload, split: Split, max_samples: int | None) -> SplitData:
    count = workload.sample_count(split)
    samples = [workload.sample(index, split) for index in range(min(count, max_samples or count))]
    frames = np.stack([image for image, _ in samples])
    images = {px: workload.resize(frames, px) for px in workload.resolutions_px}
    return SplitData(images, [truth for _, truth in samples])


class _Builder:
    """Owns the rows gathered so far."""

    def __init__(
        self,
        directory: Path,
        workload: Workload,
        data: dict[Split, SplitData],
        advance: Callable[[str], None],
    ) -> None:
        self._directory = directory
        self._workload = workload
        self._data = data
        self._advance = advance
        self._models: list[ModelInfo] = []
        self._variants: list[VariantInfo] = []
        self._payloads: list[PayloadInfo] = []
        self._training: dict[str, dict[str, Any]] = {}
        self._base_rows: list[int] = []
        self._tables: dict[Split, list[_Answers]] = {split: [] for split in data}

    def add(self, trained: TrainedModel) -> None:
        """Measure one model."""
        path = self._directory / trained.file_name
        model = load_for_inference(path, self._workload.name, trained.family, trained.exit_after)
        outputs: dict[Split, dict[int, dict[Key, Outputs]]] = {split: {} for split in self._data}
        for px in self._workload.resolutions_px:
            for split, data in self._data.items():
                outputs[split][px] = run_variants(model, self._workload, data.images[px])
                self._advance(f"{trained.name} {px} px: {split}")
            images = self._data["validation"].images[px]
            self._payloads += measure_payloads(trained.name, model, self._workload, images, px)
            self._advance(f"{trained.name} {px} px: payloads")
        temperatures = [
            self._calibrate(outputs["validation"], exit_branch) for exit_branch in range(len(trained.exit_after))
        ]
        self._models.append(self._describe(trained, model, temperatures))
        self._training[trained.name] = trained.training
        for px in self._workload.resolutions_px:
            self._record(trained.name, px, {s: outputs[s][px] for s in outputs}, temperatures)

    def _calibrate(self, outputs: dict[int, dict[Key, Outputs]], exit_branch: int) -> float:
        """Temperature with the smallest log loss of confidence against score, over all resolutions."""
        truths = self._data["validation"].truths
        exact = {px: by_key[exit_branch, 0, EXACT] for px, by_key in outputs.items()}
        scores = np.concatenate([_score(self._workload, out, px, truths) for px, out in exact.items()])

        def log_loss(temperature: float) -> float:
            confidence = [self._workload.confidence(out, temperature) for out in exact.values()]
            p = np.clip(np.concatenate(confidence), 1e-6, 1 - 1e-6)
            return float(-(scores * np.log(p) + (1 - scores) * np.log(1 - p)).mean())

        return round(float(min(_TEMPERATURES, key=log_loss)), 4)

    def _record(
        self, name: str, px: int, outputs: dict[Split, dict[Key, Outputs]], temperatures: Sequence[float]
    ) -> None:
        for key in sorted(outputs["validation"], key=lambda k: (k[0], k[2] != EXACT, k[1], k[2])):
            exit_branch, cut, codec = key
            for split, by_key in outputs.items():
                truths, temperature = self._data[split].truths, temperatures[exit_branch]
                answers = _answers(self._workload, by_key[key], px, truths, temperature)
                self._tables[split].append(answers)
            if codec == EXACT:
                base_row = len(self._variants)
            self._base_rows.append(base_row)
            exact = self._tables["validation"][base_row].predictions
            lossy = self._tables["validation"][-1].predictions
            agreement = float(np.mean([a == b for a, b in zip(exact, lossy, strict=True)]))
            accuracy = {str(s): round(float(t[-1].score.mean()), 6) for s, t in self._tables.items()}
            self._variants.append(VariantInfo(name, px, exit_branch, cut, codec, accuracy, round(agreement, 6)))

    def _describe(self, trained: TrainedModel, model: BranchyModel, temperatures: Sequence[float]) -> ModelInfo:
        layers = {
            px: describe_layers(model, self._workload.to_input(data[:1]))
            for px, data in self._data["validation"].images.items()
        }
        stages = tuple(
            StageInfo(
                {px: sum(layer.macs for layer in of.stages[i]) for px, of in layers.items()},
                {px: of.stage_shapes[i] for px, of in layers.items()},
            )
            for i in range(len(model.stages))
        )
        exits = tuple(
            ExitInfo(after, {px: sum(layer.macs for layer in of.exits[e]) for px, of in layers.items()}, t)
            for e, (after, t) in enumerate(zip(model.exit_after, temperatures, strict=True))
        )
        parameters = sum(parameter.numel() for parameter in model.parameters())
        file = _file_info(self._directory / trained.file_name)
        return ModelInfo(trained.name, trained.family, file, parameters, stages, exits)

    def finish(self) -> Manifest:
        """Write the recorded predictions and the manifest."""
        recorded = {}
        for split, rows in self._tables.items():
            path = self._directory / f"recorded_{split}.safetensors"
            save_recorded(path, _stack(rows), self._base_rows)
            recorded[str(split)] = _file_info(path)
        validation = self._data["validation"].images
        manifest = Manifest(
            format_version=FORMAT_VERSION,
            workload=self._workload.name,
            resolutions_px=self._workload.resolutions_px,
            input_shapes={px: images.shape[1:] for px, images in validation.items()},
            image_codecs=self._workload.image_codecs,
            tensor_codecs=self._workload.tensor_codecs,
            sample_counts={str(split): len(data.truths) for split, data in self._data.items()},
            models=tuple(self._models),
            variants=tuple(self._variants),
            payloads=tuple(self._payloads),
            recorded=recorded,
            training=self._training,
        )
        (self._directory / MANIFEST_FILE).write_bytes(encode_manifest(manifest))
        return manifest


@torch.inference_mode()
def run_variants(model: BranchyModel, workload: Workload, images: Images) -> dict[Key, Outputs]:
    """Outputs of every exit on u8 images (n, h, w[, 3]): exact, and after every lossy payload at every cut."""
    parts: dict[Key, list[Outputs]] = {}
    for start in range(0, len(images), BATCH):
        batch = images[start : start + BATCH]
        z = workload.to_input(batch)
        for exit_branch, output in enumerate(model.all_exits(z)):
            parts.setdefault((exit_branch, 0, EXACT), []).append(output.numpy())
        for codec in workload.image_codecs:
            if codec not in LOSSLESS_IMAGE_CODECS:
                seen = workload.to_input(_through_image_codec(codec, batch))
                _run_tails(model, seen, 0, codec, parts)
        for cut in range(1, len(model.stages)):
            z = model.run_stages(z, cut - 1, cut)
            for codec in workload.tensor_codecs:
                seen = torch.from_numpy(dequantise(quantise(z.numpy(), TENSOR_BITS[codec])))
                _run_tails(model, seen, cut, codec, parts)
    return {key: np.concatenate(outputs) for key, outputs in parts.items()}


def _run_tails(model: BranchyModel, z: torch.Tensor, cut: int, codec: str, parts: dict[Key, list[Outputs]]) -> None:
    """All exits after the cut in one pass over the remaining stages."""
    done = cut
    for exit_branch, after in enumerate(model.exit_after):
        if after > cut:
            z = model.run_stages(z, done, after)
            done = after
            parts.setdefault((exit_branch, cut, codec), []).append(model.exits[exit_branch](z).numpy())


def _through_image_codec(codec: str, images: Images) -> Images:
    return np.stack([decode(codec, encode(codec, image), image.shape, image.dtype) for image in images])


@torch.inference_mode()
def measure_payloads(name: str, model: BranchyModel, workload: Workload, images: Images, px: int) -> list[PayloadInfo]:
    """Encoded bytes of every cut and codec, mean and standard deviation over the images."""
    rows = [_payload_row(name, px, 0, codec, images) for codec in workload.image_codecs]
    z = workload.to_input(images)
    for cut in range(1, len(model.stages)):
        stage_outputs = [model.run_stages(z[i : i + BATCH], cut - 1, cut) for i in range(0, len(z), BATCH)]
        z = torch.cat(stage_outputs)
        rows += [_payload_row(name, px, cut, codec, z.numpy()) for codec in workload.tensor_codecs]
    return rows


def _payload_row(name: str, px: int, cut: int, codec: str, arrays: NDArray[Any]) -> PayloadInfo:
    sizes = np.array([len(encode(codec, array)) for array in arrays])
    return PayloadInfo(name, px, cut, codec, round(float(sizes.mean()), 2), round(float(sizes.std()), 2))


@dataclass(frozen=True)
class _Answers:
    """One variant's row on one split."""

    predictions: list[Any]
    score: NDArray[np.float32]
    confidence: NDArray[np.float32]


def _answers(workload: Workload, outputs: Outputs, px: int, truths: Sequence[Any], temperature: float) -> _Answers:
    predictions = workload.answers(outputs, px)
    score = [workload.score(got, truth) for got, truth in zip(predictions, truths, strict=True)]
    confidence = workload.confidence(outputs, temperature)
    return _Answers(predictions, np.array(score, np.float32), confidence.astype(np.float32))


def _score(workload: Workload, outputs: Outputs, px: int, truths: Sequence[Any]) -> NDArray[np.float32]:
    return _answers(workload, outputs, px, truths, 1.0).score


def _stack(rows: Sequence[_Answers]) -> Recorded:
    label = None
    if isinstance(rows[0].predictions[0], int):
        label = np.array([row.predictions for row in rows], np.uint8)
    return Recorded(np.stack([row.score for row in rows]), np.stack([row.confidence for row in rows]), label)


def _file_info(path: Path) -> FileInfo:
    data = path.read_bytes()
    return FileInfo(path.name, hashlib.sha256(data).hexdigest(), len(data))
