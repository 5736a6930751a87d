"""Read and write what knows empty frames: a safetensors file with the network, the background, and a manifest.

Reading needs only numpy. A file that cannot be used raises a UsageError of one line.
"""

from __future__ import annotations

import hashlib
import stat
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from controller.errors import UsageError
from runtime.emptiness.background import SMALL_LINES, Small, small_copy
from runtime.emptiness.network import SHAPES, Weights
from runtime.files.atomic import write_whole
from runtime.sources.window import Window
from runtime.workloads.types import Image

FORMAT = "mecpilot-empty"
VERSION = 1
#: The network has 15 kB and the background of a whole frame 100 kB; larger files are refused.
MAX_FILE_BYTES = 4 << 20
_LEVEL = "level"


class EmptyManifest(msgspec.Struct, frozen=True):
    """What the file was made for, and how."""

    workload: str
    frame: tuple[int, int]  # height, width
    window: tuple[int, int, int, int]  # x, y, w, h
    threshold: float  # frames with a lower score are empty
    recall: float  # aimed at: share of the frames with a target that reach the threshold
    calibrated_on: int  # frames with a target
    bundle_digest: str  # of the model that labelled the footage
    model: str
    arrays_sha256: str
    format: str = FORMAT
    version: int = VERSION


@dataclass(frozen=True)
class EmptyKnown:
    """A file that was read."""

    manifest: EmptyManifest
    weights: Weights
    level: Small  # background of the window

    @property
    def window(self) -> Window:
        return Window(*self.manifest.window)

    def small(self, picture: Image) -> Small:
        """The small copy of the window of a frame (h, w[, 3])."""
        return small_copy(picture[self.window.place], small_step(self.manifest.frame[0]))


def small_step(frame_lines: int) -> int:
    """Pixels of a frame per pixel of its small copy, in both directions."""
    return max(1, round(frame_lines / SMALL_LINES))


def save_empty(path: Path, manifest: EmptyManifest, weights: Weights, level: Small) -> EmptyManifest:
    """Write the file at once or not at all. Returns the manifest with its digest."""
    arrays = {
        name: np.ascontiguousarray(array, np.float32) for name, array in (weights._asdict() | {_LEVEL: level}).items()
    }
    signed = msgspec.structs.replace(manifest, arrays_sha256=_sha256(arrays))
    data = save(arrays, {"manifest": msgspec.json.encode(signed).decode()})
    write_whole(path, data, "file of empty frames", "choose another --out", make_folder=True)
    return signed


def load_empty(path: Path, workload: str, frame: tuple[int, ...]) -> EmptyKnown:
    """Read a file that ``mecpilot models empty`` wrote; UsageError when it cannot be used for frames of the workload of
    shape (h, w[, 3])."""
    _check_readable(path)
    try:
        with safe_open(path, framework="numpy") as file:
            metadata = file.metadata() or {}
            arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a dict)
        manifest = msgspec.json.decode(metadata.get("manifest", ""), type=EmptyManifest)
    except (SafetensorError, OSError, ValueError, TypeError, msgspec.MsgspecError) as error:
        raise _refused(path, f"not such a file, or damaged ({' '.join(str(error).split())[:120]})") from error
    _check_manifest(path, manifest, workload, frame)
    _check_arrays(path, manifest, arrays)
    return EmptyKnown(manifest, Weights(**{name: arrays[name] for name in Weights._fields}), arrays[_LEVEL])


def _check_readable(path: Path) -> None:
    """UsageError unless the path is a readable regular file of a plausible size: the library would block on a FIFO."""
    try:
        found = path.stat()
        if not stat.S_ISREG(found.st_mode) or found.st_size > MAX_FILE_BYTES:
            raise _refused(path, f"not a file of at most {MAX_FILE_BYTES} bytes")
        path.open("rb").close()
    except (OSError, ValueError) as error:
        raise _refused(path, f"{getattr(error, 'strerror', None) or error}") from None


def _check_manifest(path: Path, manifest: EmptyManifest, workload: str, frame: tuple[int, ...]) -> None:
    if (manifest.format, manifest.version) != (FORMAT, VERSION):
        raise _refused(path, f"format {manifest.format!r} version {manifest.version}, expected {FORMAT!r} {VERSION}")
    if manifest.workload != workload or manifest.frame != tuple(frame[:2]):
        got, wanted = (
            f"{name}, frames of {lines} x {columns} lines and columns"
            for name, (lines, columns) in ((manifest.workload, manifest.frame), (workload, tuple(frame[:2])))
        )
        raise _refused(path, f"made for {got}, expected {wanted}")
    if not (np.isfinite(manifest.threshold) and 0.0 < manifest.recall < 1.0):
        raise _refused(
            path, f"threshold {manifest.threshold}, recall {manifest.recall}, expected numbers that make sense"
        )


def _check_arrays(path: Path, manifest: EmptyManifest, arrays: Mapping[str, NDArray[Any]]) -> None:
    step = small_step(manifest.frame[0])
    level = tuple(max(1, round(side / step)) for side in (manifest.window[3], manifest.window[2]))
    shapes = {name: array.shape for name, array in SHAPES._asdict().items()} | {_LEVEL: level}
    if {name: array.shape for name, array in arrays.items()} != shapes:
        raise _refused(path, "other arrays than its manifest says")
    if any(array.dtype != np.float32 or not np.isfinite(array).all() for array in arrays.values()):
        raise _refused(path, "arrays that are not finite float32")
    if _sha256(arrays) != manifest.arrays_sha256:
        raise _refused(path, "the arrays do not have the sha256 of the manifest")


def _sha256(arrays: Mapping[str, NDArray[Any]]) -> str:
    digest = hashlib.sha256()
    for name in sorted(arrays):
        digest.update(name.encode() + b"\0" + arrays[name].astype("<f4").tobytes())
    return digest.hexdigest()


def _refused(path: Path, why: str) -> UsageError:
    return UsageError(f"--filter-empty {path}: {why}; make one with `mecpilot models empty --out FILE`")
