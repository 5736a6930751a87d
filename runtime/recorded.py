"""What did every variant answer on every sample? The table that the twin replays instead of assuming accuracy.

A recorded file holds one row per variant of the manifest, in its order, and one column per sample of one split:
score, confidence (in 255ths) and, where answers are class labels, the label. Where samples are consecutive frames it
also holds what an answer is worth later: its score against the truth of the frame so many frames on (in 255ths). On
disk a lossy variant's row is the difference to its exact variant's row, and the whole is compressed with zstd: lossy
answers hardly differ.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import zstandard
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from controller.errors import FailureError

_ZSTD_LEVEL = 19
_MAX_TABLE_BYTES = 1 << 30
#: Frames for which an answer is followed: beyond a second of video at 10 frames/s it is as good as the last one says.
MAX_LAG = 10


@dataclass(frozen=True)
class Recorded:
    """Rows are variants, columns samples."""

    score: NDArray[np.float32]  # (variants, samples) in [0, 1]
    confidence: NDArray[np.float32]  # (variants, samples) in [0, 1]
    label: NDArray[np.uint8] | None  # (variants, samples) where answers are class labels
    #: (lags, variants, samples): score of the answer to sample s against the truth of sample s + 1, s + 2, ... (the
    #: last sample is followed by the first); None where samples are no stream.
    lagged: NDArray[np.float32] | None = None

    def lagged_score(self, lag: int) -> NDArray[np.float32]:
        """(variants, samples) score against the truth so many samples later; beyond the last lag it stays."""
        if lag == 0 or self.lagged is None:
            return self.score
        return np.asarray(self.lagged[min(lag, len(self.lagged)) - 1])


def save_recorded(path: Path, recorded: Recorded, base_rows: Sequence[int]) -> None:
    """`base_rows[v]` is the exact variant of variant v (itself for an exact one)."""
    tables: dict[str, NDArray[Any]] = {
        "score": np.rint(recorded.score * 65535).astype(np.uint16),
        "confidence": np.rint(recorded.confidence * 255).astype(np.uint8),
    }
    if recorded.label is not None:
        tables["label"] = recorded.label
    if recorded.lagged is not None:
        by_variant = np.rint(recorded.lagged * 255).astype(np.uint8).swapaxes(0, 1)
        tables["lagged"] = np.ascontiguousarray(by_variant).reshape(len(by_variant), -1)
    base = np.asarray(base_rows)
    packed = {name: _pack(table, base) for name, table in tables.items()}
    shape = np.array(recorded.score.shape, np.int64)
    save_file(packed | {"shape": shape, "base_rows": base.astype(np.int64)}, path)


def _pack(table: NDArray[Any], base: NDArray[np.int64]) -> NDArray[np.uint8]:
    is_base = base == np.arange(len(base))
    difference = np.where(is_base[:, None], table, table - table[base])  # wraps around, undone by the reader
    data = zstandard.ZstdCompressor(level=_ZSTD_LEVEL).compress(difference.tobytes())
    return np.frombuffer(data, np.uint8)


def load_recorded(path: Path, variants: int, samples: int) -> Recorded:
    """FailureError when the file is not a table of that size."""
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
        lagged = None
        if "lagged" in stored:
            table = _unpack(stored["lagged"], base, MAX_LAG * samples, np.dtype(np.uint8))
            lagged = table.reshape(variants, MAX_LAG, samples).swapaxes(0, 1)
    except (OSError, SafetensorError, KeyError, ValueError, IndexError, zstandard.ZstdError) as error:
        raise FailureError(f"{path} is not a table of recorded predictions: {error}") from None
    return Recorded(
        (score / np.float32(65535)).astype(np.float32),
        (confidence / np.float32(255)).astype(np.float32),
        label,
        None if lagged is None else (lagged / np.float32(255)).astype(np.float32),
    )


def _unpack(packed: NDArray[np.uint8], base: NDArray[np.int64], samples: int, dtype: np.dtype[Any]) -> NDArray[Any]:
    expected = len(base) * samples * dtype.itemsize
    claimed = zstandard.frame_content_size(packed.tobytes())
    if claimed != expected or expected > _MAX_TABLE_BYTES:
        raise ValueError(f"a table of {claimed} bytes; expected {expected}")
    data = zstandard.ZstdDecompressor().decompress(packed.tobytes(), max_output_size=expected)
    table = np.frombuffer(data, dtype).reshape(len(base), samples).copy()
    lossy = base != np.arange(len(base))
    table[lossy] += table[base[lossy]]
    return table
