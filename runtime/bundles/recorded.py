"""Read and write the recorded predictions of every variant on every sample, which the twin replays.

A file holds tables with one row per variant of the manifest, in its order, and one column per sample of one split:
score, confidence (in 255ths) and, if answers are class labels, the label.

If the samples are consecutive frames, it also holds the score of each answer against the truth of the following frames
(in 255ths), and the bytes of every payload of the manifest. If the workload has forecasts, it holds the same score of
what a forecast makes of the answer, and how fast the tracked objects move. Payload sizes change slowly from frame to
frame, so their mean would not show what a device sees. Of payloads that may refer to an earlier one, it holds the bytes
for several ages of the reference. The references of the first samples are the last ones, as the twin plays samples in a
circle.

On disk, the row of a lossy variant is the difference to the row of its exact variant, because lossy answers hardly
differ. The tables are compressed with zstd.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import zstandard
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from controller.errors import FailureError, UsageError
from controller.records import Ints, PayloadKey
from runtime.bundles.packed_tables import pack_table, unpack_table

#: Number of following frames for which an answer is scored: one second at 10 frames/s. Later frames use the last score.
MAX_LAG = 10
#: Tracked speeds are kept in steps of 0.002 heights per frame, up to 0.508; faster ones count as this. 255: not known.
_SPEED_STEPS = 500
_NO_SPEED = 255

PayloadBytes: TypeAlias = dict[PayloadKey, NDArray[np.int32]]  # (samples,) each
AgedBytes: TypeAlias = dict[PayloadKey, NDArray[np.int32]]  # (1 + ages, samples) each


@dataclass(frozen=True)
class RecordedCrops:
    """Of parts of pictures, by the age of the answer that they refer to (``controller.crops``): A ages, S samples."""

    sent_bytes: Mapping[tuple[float, int, str], NDArray[np.int32]]  # (A, S) by crop, resolution and codec
    usable: Mapping[float, NDArray[np.bool_]]  # (A, S) by crop: whether a part is run; elsewhere the whole picture is


@dataclass(frozen=True)
class Recorded:
    """The recorded predictions of one split."""

    score: NDArray[np.float32]  # (variants, samples) in [0, 1]
    confidence: NDArray[np.float32]  # (variants, samples) in [0, 1]
    label: NDArray[np.uint8] | None  # (variants, samples); None if answers are not class labels
    #: (lags, variants, samples): score of the answer to sample s against the truth of sample s + 1, s + 2, ... (the
    #: last sample is followed by the first); None if samples are not a stream.
    lagged: NDArray[np.float32] | None = None
    #: Of payloads that may refer to an earlier one: with a reference one frame old. None if samples are not a stream.
    payload_bytes: PayloadBytes | None = None
    #: Only of payloads that may refer to an earlier one: standing alone (row 0), then with a reference of each of the
    #: manifest's ages. None if samples are not a stream.
    aged_bytes: AgedBytes | None = None
    #: (lags, variants, samples): as ``lagged``, of the answer as a forecast moves it on (``controller.forecast``). None
    #: if the workload has no forecaster, and in bundles that are older than forecasts.
    lagged_forecast: NDArray[np.float32] | None = None
    #: (variants, samples): how fast the objects move that a tracker follows after the answer, in heights of the object
    #: per frame; NaN: not known. None where ``lagged_forecast`` is, and in bundles that are older than this.
    tracked_speed: NDArray[np.float32] | None = None
    #: (variants, samples): score that the confidence lets expect (``runtime.gating.calibration``). It is not in the
    #: file; None where nobody asked for it.
    expected_score: NDArray[np.float32] | None = None
    crops: RecordedCrops | None = None  # None: no crop was measured, or none is wanted

    @property
    def moves_on(self) -> bool:
        """Whether older answers are as a forecast moves them on."""
        return self.lagged is not None and self.lagged is self.lagged_forecast

    def with_forecast(self) -> Recorded:
        """The same, with older answers as a forecast moves them on; UsageError if that was not recorded."""
        if self.lagged_forecast is None:
            raise UsageError(
                "got forecasts with a bundle that has no scores of them; record them with "
                "`mecpilot models add BUNDLE --forecast --out DIRECTORY`, or leave forecasts out"
            )
        return replace(self, lagged=self.lagged_forecast)

    def at(self, samples: Ints) -> Recorded:
        """The same for samples (S,) that show recorded ones in another order, or again and again; UsageError for a
        stream, whose answers age in the order of its frames."""
        if self.lagged is not None or self.payload_bytes is not None:
            raise UsageError("got another order of the samples of a stream; expected samples that are unrelated")
        label = None if self.label is None else self.label[:, samples]
        return Recorded(self.score[:, samples], self.confidence[:, samples], label)

    def lagged_score(self, lag: int) -> NDArray[np.float32]:
        """(variants, samples) score against the truth ``lag`` samples later; constant beyond the last lag."""
        if lag == 0 or self.lagged is None:
            return self.score
        return np.asarray(self.lagged[min(lag, len(self.lagged)) - 1])


def save_recorded(path: Path, recorded: Recorded, base_rows: Sequence[int]) -> None:
    """Write the file. `base_rows[v]` is the row of the exact variant of variant v (v itself for an exact one)."""
    tables: dict[str, NDArray[Any]] = {
        "score": np.rint(recorded.score * 65535).astype(np.uint16),
        "confidence": np.rint(recorded.confidence * 255).astype(np.uint8),
    }
    if recorded.label is not None:
        tables["label"] = recorded.label
    for name, lagged in (("lagged", recorded.lagged), ("lagged_forecast", recorded.lagged_forecast)):
        if lagged is not None:
            by_variant = np.rint(lagged * 255).astype(np.uint8).swapaxes(0, 1)
            tables[name] = np.ascontiguousarray(by_variant).reshape(len(by_variant), -1)
    if recorded.tracked_speed is not None:
        tables["tracked_speed"] = speed_steps(recorded.tracked_speed)
    base = np.asarray(base_rows)
    packed = {name: _pack(table, base) for name, table in tables.items()}
    if recorded.payload_bytes is not None:
        packed["payload_bytes"] = pack_table(np.stack(list(recorded.payload_bytes.values())).astype(np.int32))
    if recorded.aged_bytes:
        packed["aged_bytes"] = pack_table(np.concatenate(list(recorded.aged_bytes.values())).astype(np.int32))
    shape = np.array(recorded.score.shape, np.int64)
    save_file(packed | {"shape": shape, "base_rows": base.astype(np.int64)}, path)


def speed_steps(speed: NDArray[np.float32]) -> NDArray[np.uint8]:
    steps = np.minimum(np.rint(speed * _SPEED_STEPS), _NO_SPEED - 1)
    return np.where(np.isnan(speed), _NO_SPEED, steps).astype(np.uint8)


def speeds(steps: NDArray[np.uint8]) -> NDArray[np.float32]:
    return np.where(steps == _NO_SPEED, np.nan, steps / np.float32(_SPEED_STEPS)).astype(np.float32)


def _pack(table: NDArray[Any], base: NDArray[np.int64]) -> NDArray[np.uint8]:
    is_base = base == np.arange(len(base))
    difference = np.where(is_base[:, None], table, table - table[base])  # wraps around; so does the reader
    return pack_table(difference)


def load_recorded(
    path: Path,
    variants: int,
    samples: int,
    payloads: Sequence[PayloadKey] = (),
    aged: Sequence[PayloadKey] = (),
    ages: int = 0,
) -> Recorded:
    """Read the file; FailureError when it does not hold tables of (variants, samples).

    ``payloads`` are the payloads of the manifest, in its order; ``aged`` those that may refer to an earlier one, and
    ``ages`` the number of recorded ages.
    """
    try:
        stored = load_file(path)
        if tuple(stored["shape"]) != (variants, samples):
            raise FailureError(f"{path}: table of {tuple(stored['shape'])}; expected {(variants, samples)}")
        base = stored["base_rows"]
        score = _unpack(stored["score"], base, samples, np.dtype(np.uint16))
        confidence = _unpack(stored["confidence"], base, samples, np.dtype(np.uint8))
        label = None
        if "label" in stored:
            label = _unpack(stored["label"], base, samples, np.dtype(np.uint8))
        lagged, lagged_forecast = (
            _lagged(stored.get(name), base, variants, samples) for name in ("lagged", "lagged_forecast")
        )
        speed = None
        if "tracked_speed" in stored:
            speed = speeds(_unpack(stored["tracked_speed"], base, samples, np.dtype(np.uint8)))
        payload_bytes: PayloadBytes | None = None
        aged_bytes: AgedBytes | None = None
        if "payload_bytes" in stored:
            table = unpack_table(stored["payload_bytes"], (len(payloads), samples), np.dtype(np.int32))
            payload_bytes = dict(zip(payloads, table, strict=True))
            aged_bytes = {}
        if aged_bytes is not None and aged:
            table = unpack_table(stored["aged_bytes"], (len(aged) * (1 + ages), samples), np.dtype(np.int32))
            aged_bytes = dict(zip(aged, table.reshape(len(aged), 1 + ages, samples), strict=True))
    except (OSError, SafetensorError, KeyError, ValueError, IndexError, zstandard.ZstdError) as error:
        raise FailureError(f"{path} is not a table of recorded predictions: {error}") from None
    return Recorded(
        (score / np.float32(65535)).astype(np.float32),
        (confidence / np.float32(255)).astype(np.float32),
        label,
        lagged,
        payload_bytes,
        aged_bytes,
        lagged_forecast,
        speed,
    )


def _lagged(
    packed: NDArray[np.uint8] | None, base: NDArray[np.int64], variants: int, samples: int
) -> NDArray[np.float32] | None:
    """(lags, variants, samples) of a table that the file may lack."""
    if packed is None:
        return None
    table = _unpack(packed, base, MAX_LAG * samples, np.dtype(np.uint8))
    return (table.reshape(variants, MAX_LAG, samples).swapaxes(0, 1) / np.float32(255)).astype(np.float32)


def _unpack(packed: NDArray[np.uint8], base: NDArray[np.int64], samples: int, dtype: np.dtype[Any]) -> NDArray[Any]:
    table = unpack_table(packed, (len(base), samples), dtype)
    lossy = base != np.arange(len(base))
    table[lossy] += table[base[lossy]]
    return table
