"""Measure a trained model for a bundle: answers of every variant, calibrated confidence, payload bytes, layer costs.

Everything is measured on the stored weights, on the validation and the test split. Nothing is chosen on the test split:
the temperatures of the confidence are fitted on the validation split.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import torch

from runtime.building.codec_fitting import FIT_FRAMES, Codecs, fit_codecs, joined_tables, needs_fitting
from runtime.building.payload_sizes import PayloadSizes, measure_tensors, payload_splits
from runtime.building.split_frames import RECORDED_SPLITS, first_frames
from runtime.building.variants import Key, Outputs, VariantRows, answers_of, recorded_of, run_variants
from runtime.bundles.codec_tables import load_codec_tables, save_codec_tables
from runtime.bundles.manifest import LOSSLESS, ExitInfo, FileInfo, ModelInfo, StageInfo, VariantInfo
from runtime.bundles.recorded import Recorded
from runtime.bundles.weights import load_for_inference
from runtime.codecs.streams import Tables
from runtime.models.describe import describe_layers
from runtime.models.stages import BranchyModel
from runtime.workloads.base import Workload
from runtime.workloads.family_decisions import FamilyDecisions, codecs_at, resolutions_of
from runtime.workloads.inputs import model_input
from runtime.workloads.types import Split

AllOutputs = dict[Split, dict[int, dict[Key, Outputs]]]  # per split and resolution

_TEMPERATURES = np.geomspace(0.25, 4.0, 81)


@dataclass(frozen=True)
class TrainedModel:
    """A model whose weights are written into the directory of the bundle."""

    name: str
    family: str
    file_name: str
    exit_after: tuple[int, ...]
    training: dict[str, Any]
    precision: str = "float32"
    engine: str = "torch"
    #: The model that it was made from, where its own layers cannot be counted: it has as many of everything.
    like: ModelInfo | None = None


@dataclass(frozen=True)
class MeasuredModel:
    """The part of a bundle that describes one model. Row i of every table belongs to `variants[i]`."""

    info: ModelInfo
    variants: tuple[VariantInfo, ...]
    training: dict[str, Any]
    tables: dict[str, Recorded]  # per split
    tensor_sizes: PayloadSizes

    @property
    def base_rows(self) -> tuple[int, ...]:
        """Row of each variant's exact variant within this model."""
        exact = {(v.resolution_px, v.exit_branch): row for row, v in enumerate(self.variants) if v.codec == LOSSLESS}
        return tuple(exact[v.resolution_px, v.exit_branch] for v in self.variants)


def measure_model(
    directory: Path,
    workload: Workload,
    trained: TrainedModel,
    max_samples: int | None = None,
    advance: Callable[[str], None] = lambda _: None,
) -> MeasuredModel:
    """Measure one model whose weights are in `directory`, where the tables of its codecs are written.

    `max_samples` limits each split, for a quick test. `advance` is called with the name of each step before it,
    `measurement_steps` times in all.
    """
    run = _opened(directory, workload, trained, max_samples)
    fitted = run.fit_codecs()
    return _finished(directory, workload, trained, run, run.run(fitted, advance), fitted)


@dataclass(frozen=True)
class SplitRun:
    """What one model gave on one split."""

    outputs: dict[int, dict[Key, Outputs]]  # of all variants, per resolution
    sizes: PayloadSizes  # of its tensors
    fitted: dict[int, Tables]  # what its codecs need, per resolution


def run_split(
    directory: Path,
    workload: Workload,
    trained: TrainedModel,
    split: Split,
    max_samples: int | None = None,
    advance: Callable[[str], None] = lambda _: None,
) -> SplitRun:
    """The part of `measure_model` that takes long, on one split, so that two processes share the work of a model.

    Every split fits the codecs anew, on the same training frames. `advance` is called twice per resolution.
    """
    run = _opened(directory, workload, trained, max_samples, (split,))
    fitted = run.fit_codecs()
    outputs = run.run(fitted, advance)
    return SplitRun(outputs[split], run.sizes, fitted)


def measured_of(
    directory: Path,
    workload: Workload,
    trained: TrainedModel,
    runs: Mapping[Split, SplitRun],
    max_samples: int | None = None,
) -> MeasuredModel:
    """The rest of `measure_model`, given what `run_split` returned for every split."""
    run = _opened(directory, workload, trained, max_samples)
    for split in RECORDED_SPLITS:
        run.sizes = run.sizes.joined(runs[split].sizes)
    outputs = {split: runs[split].outputs for split in RECORDED_SPLITS}
    return _finished(directory, workload, trained, run, outputs, runs["validation"].fitted)


def _opened(
    directory: Path,
    workload: Workload,
    trained: TrainedModel,
    max_samples: int | None,
    splits: Sequence[Split] = RECORDED_SPLITS,
) -> _Measurement:
    model = load_for_inference(directory / trained.file_name, workload.build, trained.family, trained.exit_after)
    codecs = family_codecs(workload, trained.family, len(model.stages))
    return _Measurement(workload, trained.name, trained.family, model, codecs, max_samples, splits)


def _finished(
    directory: Path,
    workload: Workload,
    trained: TrainedModel,
    run: _Measurement,
    outputs: AllOutputs,
    fitted: Mapping[int, Tables],
) -> MeasuredModel:
    temperatures = run.calibrated(outputs)
    info = _describe(trained, run.model, file_info(directory / trained.file_name), run.examples(), temperatures)
    info = msgspec.structs.replace(
        info, **_legal(workload, trained.family), codec_tables=_saved(directory, trained.name, fitted)
    )
    return run.measured(info, outputs, temperatures, trained.training)


def measure_added(
    directory: Path,
    workload: Workload,
    info: ModelInfo,
    codecs: Codecs,
    max_samples: int | None = None,
    advance: Callable[[str], None] = lambda _: None,
) -> MeasuredModel:
    """Measure a model of an existing bundle with further codecs; what was recorded of it stays and is not repeated.

    The result has the exact variants and those of ``codecs``. Weights and earlier codec tables are in ``directory``.
    """
    model = load_for_inference(directory / info.file.name, workload.build, info.family, info.exit_after)
    run = _Measurement(workload, info.name, info.family, model, codecs, max_samples)
    fitted = run.fit_codecs()
    outputs = run.run(fitted, advance)
    tables = info.codec_tables
    if fitted:
        earlier = {} if tables is None else load_codec_tables(directory / tables.name)
        every = {px: joined_tables(info.name, earlier.get(px, {}), fitted.get(px, {})) for px in earlier | fitted}
        tables = _saved(directory, info.name, every)
    info = msgspec.structs.replace(info, **_legal(workload, info.family), codec_tables=tables)
    temperatures = [exit_info.temperature for exit_info in info.exits]
    return run.measured(info, outputs, temperatures, {})


def measure_forecasts(
    directory: Path,
    workload: Workload,
    info: ModelInfo,
    codecs: Codecs,
    max_samples: int | None = None,
    advance: Callable[[str], None] = lambda _: None,
) -> MeasuredModel:
    """Run all variants of a model of an existing bundle once more, for the scores of forecasts; without payload sizes.

    ``codecs`` are those of the bundle. Weights and codec tables are in ``directory``.
    """
    model = load_for_inference(directory / info.file.name, workload.build, info.family, info.exit_after)
    run = _Measurement(workload, info.name, info.family, model, codecs, max_samples)
    fitted = {} if info.codec_tables is None else load_codec_tables(directory / info.codec_tables.name)
    outputs = run.run(fitted, advance, payloads=False)
    return run.measured(info, outputs, [exit_info.temperature for exit_info in info.exits], {})


def measurement_steps(workload: Workload, family: str) -> int:
    """Number of times that `measure_model` and `measure_added` call `advance`."""
    return len(resolutions_of(workload, family)) * (len(RECORDED_SPLITS) + 1)


def family_codecs(workload: Workload, family: str, stages: int) -> Codecs:
    """The codecs of each cut of a family of that many stages."""
    return {cut: codecs_at(workload, family, cut) for cut in range(stages)}


class _Measurement:
    """Runs one model over the splits."""

    def __init__(
        self,
        workload: Workload,
        name: str,
        family: str,
        model: BranchyModel,
        codecs: Codecs,
        max_samples: int | None,
        splits: Sequence[Split] = RECORDED_SPLITS,
    ) -> None:
        self._workload, self._name, self.model, self._codecs = workload, name, model, codecs
        self._resolutions_px = resolutions_of(workload, family)
        self._data = {split: first_frames(workload, split, max_samples) for split in splits}
        self._truths = {split: part.truths() for split, part in self._data.items()}
        self.sizes = PayloadSizes()
        self._max_samples = max_samples

    def fit_codecs(self) -> dict[int, Tables]:
        """What the codecs of this model need, per resolution, fitted on training frames."""
        if not needs_fitting(self._codecs):
            return {}
        frames = first_frames(self._workload, "train", min(self._max_samples or FIT_FRAMES, FIT_FRAMES))
        fitted = {
            px: fit_codecs(self._name, self.model, self._workload, frames, px, self._codecs)
            for px in self._resolutions_px
        }
        return {px: tables for px, tables in fitted.items() if tables}

    def run(self, fitted: Mapping[int, Tables], advance: Callable[[str], None], payloads: bool = True) -> AllOutputs:
        """Outputs of all variants; the sizes of tensor payloads are kept, if they are wanted."""
        outputs: AllOutputs = {split: {} for split in self._data}
        for px in self._resolutions_px:
            tables = fitted.get(px, {})
            for split, data in self._data.items():
                advance(f"{px} px, {split}")
                outputs[split][px] = run_variants(self.model, self._workload, data.batches(px), self._codecs, tables)
            advance(f"{px} px, payloads")
            for split in payload_splits(self._workload) if payloads else ():
                if split not in self._data:
                    continue
                where = (self._name, self.model, self._workload, self._data[split], px)
                self.sizes.add(str(split), measure_tensors(*where, self._codecs, tables))
        return outputs

    def calibrated(self, outputs: AllOutputs) -> list[float]:
        """The temperature of each exit, from the validation split."""
        found, truths = outputs["validation"], self._truths["validation"]
        return [
            _calibrate(self._workload, {px: by_key[e, 0, LOSSLESS] for px, by_key in found.items()}, truths)
            for e in range(len(self.model.exits))
        ]

    def examples(self) -> dict[int, torch.Tensor]:
        """One input per resolution."""
        data = self._data["validation"]
        return {px: model_input(self._workload, self.model, next(data.batches(px))[:1]) for px in self._resolutions_px}

    def measured(
        self, info: ModelInfo, outputs: AllOutputs, temperatures: Sequence[float], training: dict[str, Any]
    ) -> MeasuredModel:
        """Score the outputs."""
        rows = VariantRows(self._name, self._workload, self._truths, temperatures)
        for px in self._resolutions_px:
            rows.add(px, {split: outputs[split][px] for split in outputs})
        tables = {str(split): recorded_of(answers) for split, answers in rows.answers.items()}
        return MeasuredModel(info, tuple(rows.variants), training, tables, self.sizes)


def _legal(workload: Workload, family: str) -> dict[str, Any]:
    """The fields of a `ModelInfo` that say which decisions are legal; None where they are those of the bundle."""
    own = workload.family_decisions.get(family, FamilyDecisions())
    return {
        "resolutions_px": None if own.resolutions_px is None else resolutions_of(workload, family),
        "image_codecs": own.image_codecs,
        "tensor_codecs": None if own.tensor_codecs is None else dict(own.tensor_codecs),
    }


def _saved(directory: Path, name: str, tables: Mapping[int, Tables]) -> FileInfo | None:
    if not tables:
        return None
    path = directory / f"{name}.codecs.safetensors"
    save_codec_tables(path, tables)
    return file_info(path)


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
            {px: of.stage_parts[i] for px, of in layers.items() if of.stage_parts[i]},
        )
        for i in range(len(model.stages))
    )
    exits = tuple(
        ExitInfo(after, {px: sum(layer.macs for layer in of.exits[e]) for px, of in layers.items()}, temperature)
        for e, (after, temperature) in enumerate(zip(model.exit_after, temperatures, strict=True))
    )
    parameters = sum(parameter.numel() for parameter in model.parameters())
    if (like := trained.like) is not None:
        parameters, stages = like.parameters, like.stages
    named = trained.name, trained.family, file
    return ModelInfo(*named, parameters, stages, exits, precision=trained.precision, engine=trained.engine)


def file_info(path: Path) -> FileInfo:
    """Name, digest and size of a file."""
    data = path.read_bytes()
    return FileInfo(path.name, hashlib.sha256(data).hexdigest(), len(data))
