"""What does a bundle say about itself? The manifest: typed, versioned, canonical, with a digest.

Device and MEC compare the digest at the handshake: it covers the manifest, and the manifest holds the SHA-256 of
every other file.
"""

from __future__ import annotations

import hashlib
from functools import cached_property
from typing import Any

import msgspec

from controller.errors import FailureError

FORMAT_VERSION = 1
MANIFEST_FILE = "manifest.json"
LOSSLESS = "exact"  # the effect of decisions whose payload is lossless: raw, png, none


class FileInfo(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A file of the bundle."""

    name: str
    sha256: str
    size_bytes: int


class StageInfo(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One stage; the keys of the dictionaries are resolutions in pixels."""

    macs: dict[int, int]
    shape: dict[int, tuple[int, ...]]  # (channels, h, w) of its output


class ExitInfo(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One exit head."""

    after: int  # stages that run before it
    macs: dict[int, int]  # of the head alone
    temperature: float  # of its calibrated confidence


class ModelInfo(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One branchy model."""

    name: str
    family: str
    file: FileInfo
    parameters: int
    stages: tuple[StageInfo, ...]
    exits: tuple[ExitInfo, ...]

    @property
    def exit_after(self) -> tuple[int, ...]:
        return tuple(exit_info.after for exit_info in self.exits)


class VariantInfo(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One row of the recorded predictions: what a model answers at one exit, after one lossy payload or none.

    `codec` is "exact" and `partition_point` 0 where nothing is lost on the way.
    """

    model: str
    resolution_px: int
    exit_branch: int
    partition_point: int
    codec: str
    accuracy: dict[str, float]  # mean score per split
    agreement_frac: float  # validation samples answered as by the exact variant


class PayloadInfo(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Bytes that one cut and codec put on the uplink, over the validation split."""

    model: str
    resolution_px: int
    partition_point: int
    codec: str
    mean_bytes: float
    std_bytes: float


class Manifest(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """Everything about a bundle but weights and predictions; defaults are left out, so old digests stay."""

    format_version: int
    workload: str
    resolutions_px: tuple[int, ...]
    input_shapes: dict[int, tuple[int, ...]]  # u8 image that crosses at cut 0, per resolution
    image_codecs: tuple[str, ...]  # at cut 0
    tensor_codecs: tuple[str, ...]  # at later cuts
    sample_counts: dict[str, int]
    models: tuple[ModelInfo, ...]
    variants: tuple[VariantInfo, ...]
    payloads: tuple[PayloadInfo, ...]
    recorded: dict[str, FileInfo]  # per split
    training: dict[str, dict[str, Any]]  # configuration per model
    # As the workload allows; beyond 1 there are lagged scores. The file keeps its first name, so old digests stay.
    frame_strides: tuple[int, ...] = msgspec.field(default=(1,), name="frame_intervals")


def encode_manifest(manifest: Manifest) -> bytes:
    """The file's bytes: canonical, indented for people and diffs."""
    return msgspec.json.format(_canonical(manifest), indent=1) + b"\n"


def manifest_digest(manifest: Manifest) -> str:
    """SHA-256 over the canonical form, whatever the file's white space."""
    return hashlib.sha256(_canonical(manifest)).hexdigest()


def _canonical(manifest: Manifest) -> bytes:
    plain = msgspec.to_builtins(manifest, str_keys=True)
    return msgspec.json.encode(plain, order="deterministic")


def decode_manifest(data: bytes, source: str) -> Manifest:
    """FailureError when the bytes are not a manifest of this version."""
    try:
        version = msgspec.json.decode(data, type=_Version).format_version
        if version != FORMAT_VERSION:
            raise FailureError(
                f"{source}: bundle format {version}; expected {FORMAT_VERSION}: train or fetch the bundle anew"
            )
        return msgspec.json.decode(data, type=Manifest)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise FailureError(f"{source} is not a bundle manifest: {error}") from None


class _Version(msgspec.Struct, frozen=True):
    """The one field every format version has."""

    format_version: int


class ManifestIndex:
    """Constant-time look-ups into a manifest."""

    def __init__(self, manifest: Manifest) -> None:
        self.manifest = manifest

    @cached_property
    def models(self) -> dict[str, ModelInfo]:
        return {model.name: model for model in self.manifest.models}

    @cached_property
    def variants(self) -> dict[tuple[str, int, int, int, str], int]:
        """Row of (model, resolution, exit, cut, codec); exact variants under cut 0 and "exact"."""
        return {
            (v.model, v.resolution_px, v.exit_branch, v.partition_point, v.codec): row
            for row, v in enumerate(self.manifest.variants)
        }

    @cached_property
    def payloads(self) -> dict[tuple[str, int, int, str], PayloadInfo]:
        return {(p.model, p.resolution_px, p.partition_point, p.codec): p for p in self.manifest.payloads}
