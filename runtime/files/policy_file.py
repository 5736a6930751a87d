"""Read and write policy files: a safetensors file with the weights, and a manifest in its metadata.

Reading needs only numpy. A file that cannot be used (not safetensors, another format version, another feature schema,
a wrong tensor shape, damaged weights) raises a UsageError of one line that ends with the way out.
"""

from __future__ import annotations

import hashlib
import os
import stat
from dataclasses import fields
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from controller.controllers.learned import FrozenPolicy
from controller.errors import UsageError
from controller.features.schema import FEATURE_SCHEMA
from controller.guard.ranges import NO_RANGES, Ranges, bounds_of
from runtime.files.atomic import write_whole
from runtime.files.provenance import GIVEN, SHIPPED, Used, used
from runtime.files.shipped import shipped_dir

FORMAT = "mecpilot-policy"
VERSION = 1
SHIPPED_DIR = shipped_dir("policies")
#: A policy has a few kilobytes; larger files are refused.
MAX_FILE_BYTES = 4 << 20

_TENSORS = tuple(field.name for field in fields(FrozenPolicy))


class PolicyManifest(msgspec.Struct, frozen=True):
    """The manifest of a policy file."""

    workload: str
    schema_digest: str
    context_features: tuple[str, ...]
    candidate_features: tuple[str, ...]
    training: dict[str, Any]  # configuration of the run
    evaluation: dict[str, Any]  # figures of the exported weights on held-out traces; may be empty
    weights_sha256: str
    format: str = FORMAT
    version: int = VERSION
    ranges: dict[str, tuple[float, float]] = {}  # of context features in training; empty in files of older versions

    @property
    def workloads(self) -> tuple[str, ...]:
        """The workloads that the policy was trained for."""
        named = self.training.get("workloads")
        return tuple(map(str, named)) if isinstance(named, list | tuple) else (self.workload,)


def shipped_policy(workload: str) -> Path | None:
    """Path of the policy that mecpilot ships for a workload; None without one."""
    path = SHIPPED_DIR / f"{workload}.safetensors"
    return path if os.path.isfile(path) else None


def save_policy(
    path: Path,
    policy: FrozenPolicy,
    workload: str,
    training: dict[str, Any],
    evaluation: dict[str, Any],
    ranges: Ranges = NO_RANGES,
) -> PolicyManifest:
    """Write a policy file atomically; FailureError when that is not possible. Returns its manifest.

    ``ranges``: what each context feature was in training, for the guard of a device."""
    tensors = {name: np.ascontiguousarray(getattr(policy, name), np.float32) for name in _TENSORS}
    manifest = PolicyManifest(
        workload,
        FEATURE_SCHEMA.digest,
        FEATURE_SCHEMA.context,
        FEATURE_SCHEMA.candidate,
        training,
        evaluation,
        weights_sha256(tensors),
        ranges=dict(ranges),
    )
    data = save(tensors, {"manifest": msgspec.json.encode(manifest).decode()})
    write_whole(path, data, "policy file", "choose another --out", make_folder=True)
    return manifest


def used_policy(path: Path) -> Used:
    """Provenance of the policy of a result."""
    return used(path, SHIPPED if path.parent == SHIPPED_DIR else GIVEN)


def load_policy(path: str | Path, workload: str | None = None) -> tuple[FrozenPolicy, PolicyManifest]:
    """Read a policy file that ``mecpilot export`` wrote; returns the policy and its manifest.

    UsageError when the file cannot be used, or when the policy was not trained for the given workload. A policy for
    several workloads names them in its training's "workloads".
    """
    path = Path(path)
    _check_readable(path)
    try:
        with safe_open(path, framework="numpy") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a dict)
    except (SafetensorError, OSError, ValueError, TypeError) as error:
        raise _refused(path, f"not a safetensors file ({error})") from error
    manifest = _manifest(path, metadata)
    if workload is not None and workload not in manifest.workloads:
        got, way_out = (
            f"trained for workload {' and '.join(manifest.workloads)}",
            f"give one that was trained for {workload}",
        )
        raise _refused(path, f"{got}, expected {workload}", way_out)
    return _policy(path, tensors, manifest), manifest


def _check_readable(path: Path) -> None:
    """UsageError unless the path is a readable regular file of a plausible size: the library would block on a FIFO."""
    try:
        found = path.stat()
        if not stat.S_ISREG(found.st_mode):
            raise UsageError(f"policy file {path} is not a file; expected what `mecpilot export RUN --out FILE` writes")
        if found.st_size > MAX_FILE_BYTES:
            raise _refused(path, f"{found.st_size} bytes, expected at most {MAX_FILE_BYTES}")
        path.open("rb").close()
    except FileNotFoundError:
        raise UsageError(f"policy file {path} does not exist; `mecpilot export RUN --out {path}` makes one") from None
    except (OSError, ValueError) as error:
        why = getattr(error, "strerror", None) or error
        raise UsageError(f"policy file {path}: {why}; expected a file that can be read") from None


def weights_sha256(tensors: dict[str, NDArray[np.float32]]) -> str:
    """SHA-256 over the names and bytes of all tensors."""
    digest = hashlib.sha256()
    for name in sorted(tensors):
        digest.update(name.encode() + b"\0" + tensors[name].astype("<f4").tobytes())
    return digest.hexdigest()


def _manifest(path: Path, metadata: dict[str, str]) -> PolicyManifest:
    try:
        manifest = msgspec.json.decode(metadata.get("manifest", ""), type=PolicyManifest)
    except msgspec.MsgspecError as error:
        raise _refused(path, f"no readable policy manifest in it ({error})") from error
    if (manifest.format, manifest.version) != (FORMAT, VERSION):
        got = f"format {manifest.format!r} version {manifest.version}"
        raise _refused(path, f"{got}, expected {FORMAT!r} version {VERSION}")
    if manifest.schema_digest != FEATURE_SCHEMA.digest:
        raise _refused(path, f"trained on feature schema {_schema_difference(manifest)}", way_out="train it again")
    try:
        bounds_of(manifest.ranges)
    except UsageError as error:
        raise _refused(path, str(error)) from None
    return manifest


def _schema_difference(manifest: PolicyManifest) -> str:
    theirs = {*manifest.context_features, *manifest.candidate_features}
    ours = {*FEATURE_SCHEMA.context, *FEATURE_SCHEMA.candidate}
    names = f"{manifest.schema_digest[:12]}, expected {FEATURE_SCHEMA.digest[:12]}"
    if extra := sorted(theirs - ours):
        names += f"; unknown here: {', '.join(extra)}"
    if missing := sorted(ours - theirs):
        names += f"; missing there: {', '.join(missing)}"
    return names


def _policy(path: Path, tensors: dict[str, Any], manifest: PolicyManifest) -> FrozenPolicy:
    if sorted(tensors) != sorted(_TENSORS):
        raise _refused(path, f"tensors {', '.join(sorted(tensors))}, expected {', '.join(sorted(_TENSORS))}")
    for name, tensor in tensors.items():
        if tensor.dtype != np.float32 or not np.isfinite(tensor).all():
            raise _refused(path, f"tensor {name} is not finite float32")
    if weights_sha256(tensors) != manifest.weights_sha256:
        raise _refused(path, "the weights do not have the sha256 of the manifest")
    try:
        return FrozenPolicy(**tensors)
    except ValueError as error:
        raise _refused(path, str(error)) from error


def _refused(path: Path, why: str, way_out: str = "make it again with `mecpilot export RUN --out FILE`") -> UsageError:
    return UsageError(f"policy file {path}: {why}; {way_out}")
