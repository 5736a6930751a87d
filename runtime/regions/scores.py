"""Read and write what crops were measured to score: the file ``crops.safetensors`` beside a bundle's manifest.

The manifest does not name it, so a bundle with it has the digest that it had before, and its profile stays valid. It
holds the SHA-256 of the weights that it was measured with, and is refused beside others.

Per split it has, of each measured row and age of the whole answer, the score of the answer to sample s against the
truths of the samples s, s + 1, ... (in 255ths), standing still and moved on by the workload's forecaster, if it has
one; the bytes of each crop that is sent; and whether a window could be found at all. Tables are compressed with zstd.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import numpy as np
import zstandard
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from controller.errors import FailureError, UsageError
from controller.gates import calibrated
from controller.records import Decision, Floats
from runtime.bundles.bundle import Bundle
from runtime.bundles.packed_tables import pack_table, unpack_table
from runtime.bundles.recorded import MAX_LAG, Recorded, RecordedCrops, speed_steps, speeds
from runtime.gating.calibration import Calibrations

CROPS_FILE = "crops.safetensors"
_VERSION = 1
_HEADER = "crops"

Bytes = NDArray[np.int32]
Scores = NDArray[np.float32]


class CropRow(NamedTuple):
    """A measured row: what was run on a crop. The codec is "none" where the device answers alone."""

    crop: float
    model: str
    resolution_px: int
    exit_branch: int
    codec: str


class SentCrop(NamedTuple):
    """A crop that is sent."""

    crop: float
    resolution_px: int
    codec: str


class CropHeader(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The text of the file."""

    version: int
    weights: dict[str, str]  # SHA-256 per model
    ages: tuple[int, ...]  # in frames, ascending
    shares: tuple[float, ...]
    rows: tuple[CropRow, ...]
    sent: tuple[SentCrop, ...]
    samples: dict[str, int]  # per split


@dataclass(frozen=True)
class CropTables:
    """What was measured on one split of S samples: R rows, A ages, L = 1 + MAX_LAG lags."""

    still: Scores  # (R, A, L, S)
    forecast: Scores | None  # (R, A, L, S); None without a forecaster
    sent_bytes: Bytes  # (sent crops, A, S)
    usable: NDArray[np.bool_]  # (shares, A, S) whether a part is run; elsewhere the whole picture is
    confidence: Scores  # (R, A, S) of what the network says to the part, before its calibration
    #: (R, A, S) of the objects that a tracker follows, as ``Recorded.tracked_speed``; None without a forecaster.
    speed: Scores | None

    def mean_scores(self, forecast: bool) -> Floats:
        """(R, A, L) over the samples; ``forecast``: older answers move on, and so do the boxes outside the window."""
        table = self.forecast if forecast and self.forecast is not None else self.still
        return np.asarray(table.mean(axis=3, dtype=float))


@dataclass(frozen=True)
class CropScores:
    """The content of a file. The tables are read on demand."""

    path: Path
    header: CropHeader

    def tables(self, split: str) -> CropTables:
        """Of a split; FailureError when the file is damaged."""
        if split not in self.header.samples:
            raise UsageError(f"{self.path} has no split {split!r}; expected one of {', '.join(self.header.samples)}")
        return _read_tables(self.path, self.header, split)

    def row(self, decision: Decision) -> int | None:
        """The measured row of a decision with a crop; None where it was not measured."""
        d = decision
        wanted = CropRow(d.crop, d.model, d.resolution_px, d.exit_branch, d.payload)
        return self._places.get(wanted)

    def sent(self, decision: Decision) -> int:
        """Which of the sent crops a decision sends."""
        return self.header.sent.index(SentCrop(decision.crop, decision.resolution_px, decision.payload))

    @cached_property
    def _places(self) -> dict[CropRow, int]:
        return {row: place for place, row in enumerate(self.header.rows)}


def scores_of(bundle: Bundle) -> CropScores | None:
    """What the crops of a bundle score; None where that was not measured. FailureError for a damaged file, and for one
    of other weights."""
    path = bundle.directory / CROPS_FILE
    if not path.is_file():
        return None
    header = _read_header(path)
    if header.version != _VERSION:
        raise FailureError(f"{path}: got format {header.version}, expected {_VERSION}; measure the crops again")
    for model, digest in header.weights.items():
        if model not in bundle.model_names or bundle.info(model).file.sha256 != digest:
            raise FailureError(f"{path} was measured with other weights of {model}; measure the crops again")
    counts = {split: bundle.manifest.sample_counts.get(split) for split in header.samples}
    if counts != header.samples:
        raise FailureError(f"{path} has {header.samples} samples; expected {counts}: measure the crops again")
    return CropScores(path, header)


def with_crop_scores(recorded: Recorded, scores: CropScores, split: str, calibrations: Calibrations) -> Recorded:
    """The recorded answers of a split, and behind the variants those of every measured row at every age.

    Where older answers move on in ``recorded``, so do the boxes outside the window.
    """
    tables = scores.tables(split)
    shape = (-1, MAX_LAG + 1, tables.still.shape[-1])
    still = tables.still.reshape(shape)
    moved = still if tables.forecast is None else tables.forecast.reshape(shape)
    confidence = tables.confidence.reshape(-1, shape[-1])
    lagged = _behind(recorded.lagged, moved if recorded.moves_on else still)
    forecast = lagged if recorded.moves_on else _behind(recorded.lagged_forecast, moved)
    expected = recorded.expected_score
    return replace(
        recorded,
        score=np.concatenate((recorded.score, (moved if recorded.moves_on else still)[:, 0])),
        confidence=np.concatenate((recorded.confidence, confidence)),
        lagged=lagged,
        lagged_forecast=forecast,
        tracked_speed=_with_speeds(recorded.tracked_speed, tables.speed, confidence),
        expected_score=None
        if expected is None
        else np.concatenate((expected, _expected_scores(scores.header, tables.confidence, calibrations))),
        crops=RecordedCrops(
            {(*sent,): tables.sent_bytes[k] for k, sent in enumerate(scores.header.sent)},
            {share: tables.usable[k] for k, share in enumerate(scores.header.shares)},
        ),
    )


def _behind(known: Scores | None, more: Scores) -> Scores | None:
    """(lags, variants, S) with more variants (n, 1 + lags, S) behind."""
    return None if known is None else np.concatenate((known, more[:, 1:].swapaxes(0, 1)), axis=1)


def _with_speeds(known: Scores | None, more: Scores | None, like: Scores) -> Scores | None:
    if known is None:
        return None
    found = np.full_like(like, np.nan) if more is None else more.reshape(like.shape)
    return np.concatenate((known, found))


def _expected_scores(header: CropHeader, confidence: Scores, calibrations: Calibrations) -> Scores:
    """(R * A, S) what a device makes of the confidence, as of the whole picture."""
    rows = [
        calibrated(of, *calibrations.best_of(row.model, row.resolution_px, row.exit_branch))
        for row, of in zip(header.rows, confidence, strict=True)
    ]
    return np.concatenate(rows).astype(np.float32)


def write_crops(path: Path, header: CropHeader, tables: Mapping[str, CropTables]) -> None:
    """Write the file."""
    packed: dict[str, NDArray[np.uint8]] = {}
    for split, of in tables.items():
        packed[f"{split}.still"] = pack_table(np.rint(of.still * 255).astype(np.uint8))
        if of.forecast is not None:
            packed[f"{split}.forecast"] = pack_table(np.rint(of.forecast * 255).astype(np.uint8))
        packed[f"{split}.sent_bytes"] = pack_table(of.sent_bytes.astype(np.int32))
        packed[f"{split}.usable"] = pack_table(of.usable.astype(np.uint8))
        packed[f"{split}.confidence"] = pack_table(np.rint(of.confidence * 255).astype(np.uint8))
        if of.speed is not None:
            packed[f"{split}.speed"] = pack_table(speed_steps(of.speed))
    save_file(packed, path, {_HEADER: msgspec.json.encode(header).decode()})


def _read_header(path: Path) -> CropHeader:
    try:
        with safe_open(path, "numpy") as file:
            return msgspec.json.decode((file.metadata() or {}).get(_HEADER, ""), type=CropHeader)
    except (OSError, SafetensorError, msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise _damaged(path, error) from None


def _read_tables(path: Path, header: CropHeader, split: str) -> CropTables:
    samples, ages = header.samples[split], len(header.ages)
    answers = (len(header.rows), ages, samples)
    scores = (len(header.rows), ages, MAX_LAG + 1, samples)
    try:
        with safe_open(path, "numpy") as file:
            names = set(file.keys())

            def table(name: str, shape: tuple[int, ...], kind: type[np.generic]) -> NDArray[Any]:
                return unpack_table(file.get_tensor(f"{split}.{name}"), shape, np.dtype(kind))

            moved = f"{split}.forecast" in names
            return CropTables(
                _scores(table("still", scores, np.uint8)),
                _scores(table("forecast", scores, np.uint8)) if moved else None,
                table("sent_bytes", (len(header.sent), ages, samples), np.int32),
                table("usable", (len(header.shares), ages, samples), np.uint8).astype(np.bool_),
                _scores(table("confidence", answers, np.uint8)),
                speeds(table("speed", answers, np.uint8)) if moved else None,
            )
    except (OSError, SafetensorError, ValueError, zstandard.ZstdError) as error:
        raise _damaged(path, error) from None


def _scores(steps: NDArray[Any]) -> Scores:
    """Scores from 255ths."""
    return (steps / np.float32(255)).astype(np.float32)


def _damaged(path: Path, error: Exception) -> FailureError:
    return FailureError(f"{path} does not hold the scores of crops: {error}; measure them again")
