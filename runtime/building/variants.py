"""Run every variant of a model (without loss, and after every lossy payload), and score the answers."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from runtime.building.streams import RoundTrip
from runtime.bundles.manifest import LOSSLESS, VariantInfo
from runtime.bundles.recorded import MAX_LAG, Recorded
from runtime.codecs import Codec, get_codec
from runtime.codecs.several import codec_for
from runtime.codecs.streams import StreamCodec, Tables
from runtime.models.packing import Shapes
from runtime.models.stages import BranchyModel
from runtime.workloads.base import Workload, forecaster_of, stream_score
from runtime.workloads.inputs import model_input
from runtime.workloads.types import Images, Split

Outputs = NDArray[np.floating[Any]]
Key = tuple[int, int, str]  # exit branch, partition point, codec; without loss: partition point 0 and "exact"


@torch.inference_mode()
def run_variants(
    model: BranchyModel,
    workload: Workload,
    batches: Iterable[Images],
    codecs: Mapping[int, Sequence[str]],
    tables: Tables = MappingProxyType({}),
) -> dict[Key, Outputs]:
    """Outputs (samples, ...) of every exit on u8 images (n, h, w[, 3]): exact, and after every lossy payload.

    ``codecs`` are those of each cut. Payloads that may refer to an earlier one are coded as one stream over all
    batches, with ``tables``.
    """
    parts: dict[Key, list[Outputs]] = {}
    lossy = _Lossy(codecs, tables)
    for batch in batches:
        z = model_input(workload, model, batch)
        for exit_branch, output in enumerate(model.all_exits(z)):
            parts.setdefault((exit_branch, 0, LOSSLESS), []).append(output.numpy())
        for codec, arrived in lossy.roundtrips(0, batch):
            _run_tails(model, model_input(workload, model, arrived), 0, codec, parts)
        for cut in range(1, len(model.stages)):
            z = model.run_stages(z, cut - 1, cut)
            for codec, arrived in lossy.roundtrips(cut, z.numpy(), model.parts_at(cut, tuple(z.shape[1:]))):
                _run_tails(model, torch.from_numpy(arrived), cut, codec, parts)
    return {key: np.concatenate(outputs) for key, outputs in parts.items()}


class _Lossy:
    """The lossy codecs of each cut, and their streams. A lossless codec needs no variant: its answers are the exact
    ones."""

    def __init__(self, codecs: Mapping[int, Sequence[str]], tables: Tables) -> None:
        self._codecs = {cut: [name for name in names if not get_codec(name).lossless] for cut, names in codecs.items()}
        self._tables = tables
        self._streams: dict[tuple[int, str], RoundTrip] = {}

    def roundtrips(self, cut: int, arrays: NDArray[Any], parts: Shapes = ()) -> Iterator[tuple[str, NDArray[Any]]]:
        """Each codec of a cut, and what arrives of the next samples (n, ...). ``parts`` are of packed tensors."""
        for name in self._codecs.get(cut, ()):
            yield name, self._roundtrip(cut, codec_for(name, parts), arrays)

    def _roundtrip(self, cut: int, codec: Codec, arrays: NDArray[Any]) -> NDArray[Any]:
        if not isinstance(codec, StreamCodec):
            return codec.roundtrip(arrays)
        key = (cut, codec.name)
        if key not in self._streams:
            self._streams[key] = RoundTrip(codec, arrays.shape[1:], self._tables)
        return self._streams[key].roundtrip(arrays)


def _run_tails(model: BranchyModel, z: torch.Tensor, cut: int, codec: str, parts: dict[Key, list[Outputs]]) -> None:
    """Run all exits after the cut in one pass over the remaining stages, and append their outputs to ``parts``."""
    done = cut
    for exit_branch, after in enumerate(model.exit_after):
        if after > cut:
            z = model.run_stages(z, done, after)
            done = after
            parts.setdefault((exit_branch, cut, codec), []).append(model.exits[exit_branch](z).numpy())


@dataclass(frozen=True)
class Answers:
    """The answers of one variant on one split."""

    predictions: list[Any]
    score: NDArray[np.float32]  # (samples,)
    confidence: NDArray[np.float32]  # (samples,)
    lagged: NDArray[np.float32] | None = None  # (lags, samples), see `Recorded.lagged`
    lagged_forecast: NDArray[np.float32] | None = None  # (lags, samples), see `Recorded.lagged_forecast`
    tracked_speed: NDArray[np.float32] | None = None  # (samples,), see `Recorded.tracked_speed`


def answers_of(workload: Workload, outputs: Outputs, px: int, truths: Sequence[Any], temperature: float) -> Answers:
    """Interpret outputs (samples, ...) at resolution ``px``, and score the predictions."""
    predictions = workload.answers(outputs, px)
    score = [workload.score(got, truth) for got, truth in zip(predictions, truths, strict=True)]
    confidence = workload.confidence(outputs, temperature)
    return Answers(predictions, np.array(score, np.float32), confidence.astype(np.float32))


def lagged_scores(workload: Workload, predictions: Sequence[Any], truths: Sequence[Any]) -> NDArray[np.float32] | None:
    """(lags, samples) score of each answer against the truth of the following samples; None if they are no stream."""
    score = stream_score(workload)
    if score is None:
        return None
    later = [[*truths[lag % len(truths) :], *truths[: lag % len(truths)]] for lag in range(1, MAX_LAG + 1)]
    return np.array(
        [[score(got, truth) for got, truth in zip(predictions, row, strict=True)] for row in later], np.float32
    )


def forecast_scores(
    workload: Workload, predictions: Sequence[Any], truths: Sequence[Any]
) -> NDArray[np.float32] | None:
    """(lags, samples) as ``lagged_scores``, of what a forecast makes of each answer; None without a forecaster.

    What a forecast knows depends on the answers before. Frames wait longest for an answer where a frame stride skips
    them. So the score of a lag is that of a forecaster which was fed at the shortest stride that skips as many frames
    (docs/forecast.md has the error of this choice).
    """
    score = stream_score(workload)
    if score is None or workload.forecaster() is None:
        return None
    scores = np.zeros((MAX_LAG, len(truths)), np.float32)
    for stride, lags in _lags_by_stride(workload.frame_strides).items():
        for first in range(stride):
            forecaster = forecaster_of(workload)
            for sample in range(first, len(truths), stride):
                forecast = forecaster.add(sample, predictions[sample])
                assert forecast is not None, "answers are added in order"
                for lag in lags:
                    truth = truths[(sample + lag) % len(truths)]
                    scores[lag - 1, sample] = score(forecast.at(sample + lag).prediction, truth)
    return scores


def tracked_speeds(workload: Workload, predictions: Sequence[Any]) -> NDArray[np.float32] | None:
    """(samples,) how fast objects move after each answer, in heights per frame; NaN: not known; None as above.

    The forecaster is fed every sample in order, whatever the stride: a speed per frame depends little on how often an
    object was seen, once it was seen twice, and an observation needs one number per answer. A device that skips frames
    knows a new object's speed one stride later than it is here. No sample comes before the first one.
    """
    if stream_score(workload) is None or workload.forecaster() is None:
        return None
    forecaster = forecaster_of(workload)
    found = [forecaster.add(sample, prediction) for sample, prediction in enumerate(predictions)]
    speeds = [None if forecast is None else forecast.speed for forecast in found]
    return np.array([np.nan if speed is None else speed for speed in speeds], np.float32)


def _lags_by_stride(strides: Sequence[int]) -> dict[int, list[int]]:
    """Each lag at the shortest stride that is longer, or at the longest one."""
    found: dict[int, list[int]] = {}
    for lag in range(1, MAX_LAG + 1):
        longer = [stride for stride in strides if stride > lag]
        found.setdefault(min(longer, default=max(strides)), []).append(lag)
    return found


class VariantRows:
    """Collects the variants of one model in the order of the manifest, and their answers on every split."""

    def __init__(
        self, name: str, workload: Workload, truths: dict[Split, list[Any]], temperatures: Sequence[float]
    ) -> None:
        self._name = name
        self._workload = workload
        self._truths = truths
        self._temperatures = temperatures
        self.variants: list[VariantInfo] = []
        self.base_rows: list[int] = []
        self.answers: dict[Split, list[Answers]] = {split: [] for split in truths}

    def add(self, px: int, outputs: dict[Split, dict[Key, Outputs]]) -> None:
        """Add all variants of one resolution: exit by exit, the exact one first."""
        for key in sorted(outputs["validation"], key=lambda k: (k[0], k[2] != LOSSLESS, k[1], k[2])):
            exit_branch, cut, codec = key
            temperature = self._temperatures[exit_branch]
            for split, by_key in outputs.items():
                truths = self._truths[split]
                answers = answers_of(self._workload, by_key[key], px, truths, temperature)
                lagged = lagged_scores(self._workload, answers.predictions, truths)
                forecast = forecast_scores(self._workload, answers.predictions, truths)
                speed = tracked_speeds(self._workload, answers.predictions)
                answers = replace(answers, lagged=lagged, lagged_forecast=forecast, tracked_speed=speed)
                self.answers[split].append(answers)
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


def recorded_of(rows: Sequence[Answers]) -> Recorded:
    """The tables of one split from the answers of its variants."""
    label = None
    if isinstance(rows[0].predictions[0], int):
        label = np.array([row.predictions for row in rows], np.uint8)
    lagged = [row.lagged for row in rows if row.lagged is not None]
    forecast = [row.lagged_forecast for row in rows if row.lagged_forecast is not None]
    speed = [row.tracked_speed for row in rows if row.tracked_speed is not None]
    return Recorded(
        np.stack([row.score for row in rows]),
        np.stack([row.confidence for row in rows]),
        label,
        np.stack(lagged, axis=1) if lagged else None,
        lagged_forecast=np.stack(forecast, axis=1) if forecast else None,
        tracked_speed=np.stack(speed) if speed else None,
    )
