"""How is a bundle made from trained weights? Measure everything once, on stored weights, and write it down.

For every model, resolution and exit: answers on the validation and the test split, without loss and after every lossy
payload at every cut; calibrated confidence; payload bytes. Test figures are written, never chosen on: temperatures
are fitted on the validation split.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from runtime.bundles.manifest import (
    FORMAT_VERSION,
    LOSSLESS,
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
from runtime.bundles.recorded import MAX_LAG, PayloadBytes, PayloadKey, Recorded, save_recorded
from runtime.bundles.weights import load_for_inference
from runtime.codecs import TENSOR_BITS, decode, dequantise, encode, quantise
from runtime.files.atomic import write_whole
from runtime.models.describe import describe_layers
from runtime.models.stages import BranchyModel
from runtime.workloads.base import Workload, stream_score
from runtime.workloads.types import Image, Images, Split

RECORDED_SPLITS: tuple[Split, ...] = ("validation", "test")
BATCH_PIXELS = 200_000  # how much is in memory at once: 255 small garments, or one large photograph
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
class MeasuredModel:
    """A model's part of the bundle; rows of `variants` and of every table belong together."""

    info: ModelInfo
    variants: tuple[VariantInfo, ...]
    base_rows: tuple[int, ...]  # row of each variant's exact variant, counted within this model
    training: dict[str, Any]
    tables: dict[str, Recorded]  # per split
    tensor_bytes: dict[str, PayloadBytes]  # per split, of every tensor that the model may send


@dataclass(frozen=True)
class SplitData:
    """The first frames of one split; they are read as they are needed, since all of them may not fit into memory."""

    workload: Workload
    split: Split
    count: int

    def truths(self) -> list[Any]:
        return [self.workload.sample(index, self.split)[1] for index in range(self.count)]

    def batches(self, px: int) -> Iterator[Images]:
        """All frames at one resolution, a few at a time."""
        batch: list[Image] = []
        for index in range(self.count):
            batch.append(self.workload.resize(self.workload.sample(index, self.split)[0], px))
            if index + 1 == self.count or (len(batch) + 1) * _pixels(batch[0]) > BATCH_PIXELS:
                yield np.stack(batch)
                batch = []


def write_bundle(
    directory: Path, workload: Workload, measured: Sequence[MeasuredModel], image_bytes: dict[str, PayloadBytes]
) -> Manifest:
    """Write recorded predictions and manifest beside the weights."""
    payload_bytes = {split: _all_payloads(measured, split, images) for split, images in image_bytes.items()}
    recorded = {}
    base_rows: list[int] = []
    for model in measured:
        offset = len(base_rows)
        base_rows += [offset + row for row in model.base_rows]
    for split in RECORDED_SPLITS:
        path = directory / f"recorded_{split}.safetensors"
        table = _concatenate([model.tables[split] for model in measured])
        if stream_score(workload) is not None:  # of samples that are no stream, mean and spread say all
            table = replace(table, payload_bytes=payload_bytes[split])
        save_recorded(path, table, base_rows)
        recorded[str(split)] = _file_info(path)
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


def measure_model(
    directory: Path,
    workload: Workload,
    trained: TrainedModel,
    max_samples: int | None = None,
    advance: Callable[[str], None] = lambda _: None,
) -> MeasuredModel:
    """Measure one model whose weights are in `directory`.

    `max_samples` limits each split (a quick look); `advance` is told what comes next, `measurement_steps` times.
    """
    data = {split: _first_frames(workload, split, max_samples) for split in RECORDED_SPLITS}
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
    rows = _Rows(trained.name, workload, truths, temperatures)
    for px in workload.resolutions_px:
        rows.add(px, {split: outputs[split][px] for split in outputs})
    examples = {px: workload.to_input(next(data["validation"].batches(px))[:1]) for px in workload.resolutions_px}
    return MeasuredModel(
        info=_describe(trained, model, _file_info(path), examples, temperatures),
        variants=tuple(rows.variants),
        base_rows=tuple(rows.base_rows),
        training=trained.training,
        tables={str(split): _stack(answers) for split, answers in rows.answers.items()},
        tensor_bytes=tensor_bytes,
    )


def measurement_steps(workload: Workload) -> int:
    """How often `measure_model` calls `advance`."""
    return len(workload.resolutions_px) * (len(RECORDED_SPLITS) + 1)


def _first_frames(workload: Workload, split: Split, max_samples: int | None) -> SplitData:
    count = workload.sample_count(split)
    return SplitData(workload, split, min(count, max_samples or count))


def _pixels(image: Image) -> int:
    return int(image.shape[0] * image.shape[1])


def _calibrate(workload: Workload, exact: dict[int, Outputs], truths: Sequence[Any]) -> float:
    """Temperature of one exit with the smallest log loss of confidence against score, over all resolutions."""
    scores = np.concatenate([_answers(workload, out, px, truths, 1.0).score for px, out in exact.items()])

    def log_loss(temperature: float) -> float:
        confidence = [workload.confidence(out, temperature) for out in exact.values()]
        p = np.clip(np.concatenate(confidence), 1e-6, 1 - 1e-6)
        return float(-(scores * np.log(p) + (1 - scores) * np.log(1 - p)).mean())

    return round(float(min(_TEMPERATURES, key=log_loss)), 4)


class _Rows:
    """Variants of one model in order, and their answers on every split."""

    def __init__(
        self, name: str, workload: Workload, truths: dict[Split, list[Any]], temperatures: Sequence[float]
    ) -> None:
        self._name = name
        self._workload = workload
        self._truths = truths
        self._temperatures = temperatures
        self.variants: list[VariantInfo] = []
        self.base_rows: list[int] = []
        self.answers: dict[Split, list[_Answers]] = {split: [] for split in truths}

    def add(self, px: int, outputs: dict[Split, dict[Key, Outputs]]) -> None:
        """All variants of one resolution: by exit, the exact one first."""
        for key in sorted(outputs["validation"], key=lambda k: (k[0], k[2] != LOSSLESS, k[1], k[2])):
            exit_branch, cut, codec = key
            temperature = self._temperatures[exit_branch]
            for split, by_key in outputs.items():
                truths = self._truths[split]
                answers = _answers(self._workload, by_key[key], px, truths, temperature)
                lagged = lagged_scores(self._workload, answers.predictions, truths)
                self.answers[split].append(replace(answers, lagged=lagged))
            if codec == LOSSLESS:
                base_row = len(self.variants)
            self.base_rows.append(base_row)
            accuracy = {str(split): round(float(rows[-1].score.mean()), 6) for split, rows in self.answers.items()}
            agreement = round(self._agreement(base_row), 6)
            self.variants.append(VariantInfo(self._name, px, exit_branch, cut, codec, accuracy, agreement))

    def _agreement(self, base_row: int) -> float:
        rows = self.answers["validation"]
        pairs = zip(rows[base_row].predictions, rows[-1].predictions, strict=True)
        return float(np.mean([self._workload.score(lossy, exact) for exact, lossy in pairs]))


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


@torch.inference_mode()
def run_variants(model: BranchyModel, workload: Workload, batches: Iterable[Images]) -> dict[Key, Outputs]:
    """Outputs of every exit on u8 images (n, h, w[, 3]): exact, and after every lossy payload at every cut."""
    parts: dict[Key, list[Outputs]] = {}
    for batch in batches:
        z = workload.to_input(batch)
        for exit_branch, output in enumerate(model.all_exits(z)):
            parts.setdefault((exit_branch, 0, LOSSLESS), []).append(output.numpy())
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


def payload_splits(workload: Workload) -> tuple[Split, ...]:
    """Where payloads are measured: on every split that is replayed, if samples are a stream."""
    return RECORDED_SPLITS if stream_score(workload) is not None else ("validation",)


@torch.inference_mode()
def measure_tensors(
    name: str, model: BranchyModel, workload: Workload, batches: Iterable[Images], px: int
) -> PayloadBytes:
    """Encoded bytes of every cut and codec after the first stage, for each of the images."""
    sizes: dict[PayloadKey, list[int]] = {}
    for batch in batches:
        z = workload.to_input(batch)
        for cut in range(1, len(model.stages)):
            z = model.run_stages(z, cut - 1, cut)
            for codec in workload.tensor_codecs:
                sizes.setdefault((name, px, cut, codec), []).extend(len(encode(codec, array)) for array in z.numpy())
    return _as_arrays(sizes)


def measure_images(
    workload: Workload, max_samples: int | None = None, advance: Callable[[str], None] = lambda _: None
) -> dict[str, PayloadBytes]:
    """Encoded bytes of every image at every resolution and codec, per split; the same for every model, so for "".

    `advance` is told what comes next, as often as there are resolutions.
    """
    sizes: dict[str, dict[PayloadKey, list[int]]] = {str(split): {} for split in payload_splits(workload)}
    for px in workload.resolutions_px:
        advance(f"{px} px")
        for split in payload_splits(workload):
            for batch in _first_frames(workload, split, max_samples).batches(px):
                for codec in workload.image_codecs:
                    sizes[split].setdefault(("", px, 0, codec), []).extend(len(encode(codec, image)) for image in batch)
    return {split: _as_arrays(found) for split, found in sizes.items()}


def _as_arrays(sizes: dict[PayloadKey, list[int]]) -> PayloadBytes:
    return {key: np.array(found, np.int32) for key, found in sizes.items()}


def _all_payloads(measured: Sequence[MeasuredModel], split: str, images: PayloadBytes) -> PayloadBytes:
    """Model by model, resolution by resolution: its images, then its tensors."""
    everything: PayloadBytes = {}
    for model in measured:
        own = {(model.info.name, *key[1:]): sizes for key, sizes in images.items()} | model.tensor_bytes[split]
        everything |= {key: own[key] for key in sorted(own, key=lambda key: -key[1])}  # a stable sort
    return everything


def _summary(key: PayloadKey, found: NDArray[np.int32]) -> PayloadInfo:
    return PayloadInfo(*key, round(float(np.mean(found)), 2), round(float(np.std(found)), 2))


@dataclass(frozen=True)
class _Answers:
    """One variant's row on one split."""

    predictions: list[Any]
    score: NDArray[np.float32]
    confidence: NDArray[np.float32]
    lagged: NDArray[np.float32] | None = None  # (lags, samples), see `Recorded.lagged`


def _answers(workload: Workload, outputs: Outputs, px: int, truths: Sequence[Any], temperature: float) -> _Answers:
    predictions = workload.answers(outputs, px)
    score = [workload.score(got, truth) for got, truth in zip(predictions, truths, strict=True)]
    confidence = workload.confidence(outputs, temperature)
    return _Answers(predictions, np.array(score, np.float32), confidence.astype(np.float32))


def lagged_scores(workload: Workload, predictions: Sequence[Any], truths: Sequence[Any]) -> NDArray[np.float32] | None:
    """(lags, samples) score of each answer against the truth of the samples after its own; None without a stream."""
    score = stream_score(workload)
    if score is None:
        return None
    later = [[*truths[lag % len(truths) :], *truths[: lag % len(truths)]] for lag in range(1, MAX_LAG + 1)]
    return np.array(
        [[score(got, truth) for got, truth in zip(predictions, row, strict=True)] for row in later], np.float32
    )


def _stack(rows: Sequence[_Answers]) -> Recorded:
    label = None
    if isinstance(rows[0].predictions[0], int):
        label = np.array([row.predictions for row in rows], np.uint8)
    lagged = [row.lagged for row in rows if row.lagged is not None]
    return Recorded(
        np.stack([row.score for row in rows]),
        np.stack([row.confidence for row in rows]),
        label,
        np.stack(lagged, axis=1) if lagged else None,
    )


def _concatenate(tables: Sequence[Recorded]) -> Recorded:
    labels = [table.label for table in tables if table.label is not None]
    lagged = [table.lagged for table in tables if table.lagged is not None]
    return Recorded(
        np.concatenate([table.score for table in tables]),
        np.concatenate([table.confidence for table in tables]),
        np.concatenate(labels) if labels else None,
        np.concatenate(lagged, axis=1) if lagged else None,
    )


def _file_info(path: Path) -> FileInfo:
    data = path.read_bytes()
    return FileInfo(path.name, hashlib.sha256(data).hexdigest(), len(data))
