"""The manifest of a bundle, its canonical encoding and its digest.

Device and MEC compare the digest in the handshake. It covers the manifest, and the manifest holds the SHA-256 of every
other file.
"""

from __future__ import annotations

import hashlib
from functools import cached_property
from typing import Any, TypeVar

import msgspec

from controller.errors import FailureError
from runtime.codecs.base import IMAGE, Kind
from runtime.codecs.base import LOSSLESS as LOSSLESS
from runtime.files.reading import format_version
from runtime.models.packing import Shapes

FORMAT_VERSION = 1
MANIFEST_FILE = "manifest.json"
#: In ``Manifest.training``: the model from which a compressed one was made.
COMPRESSED_FROM = "compressed_from"

Entry = TypeVar("Entry", bound=msgspec.Struct)


class FileInfo(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A file of the bundle."""

    name: str
    sha256: str
    size_bytes: int


class StageInfo(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """One stage; the keys of the dictionaries are resolutions in pixels."""

    macs: dict[int, int]
    shape: dict[int, tuple[int, ...]]  # (channels, h, w) of its output; (values,) of several tensors packed into one
    #: Shapes of these tensors in their order; {}: one tensor. Left out of the file then, so old digests stay valid.
    parts: dict[int, Shapes] = {}


class ExitInfo(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One exit head."""

    after: int  # number of stages before it
    macs: dict[int, int]  # of the head alone; keys are resolutions in pixels
    temperature: float  # that calibrates its confidence


class ModelInfo(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """One branchy model. Models of one family differ in name and, for instance, in precision."""

    name: str  # used in decisions; unique in the bundle
    family: str  # the architecture that the workload builds
    file: FileInfo
    parameters: int
    stages: tuple[StageInfo, ...]
    exits: tuple[ExitInfo, ...]
    # Defaults are left out of the file, so bundles that are older than these fields keep their digest.
    precision: str = "float32"  # of the computation; weights may be stored in fewer bits
    engine: str = "torch"  # see `runtime.inference.engines`
    resolutions_px: tuple[int, ...] | None = None  # None: those of the bundle
    image_codecs: tuple[str, ...] | None = None  # at cut 0. None: those of the bundle; (): no full offload
    tensor_codecs: dict[int, tuple[str, ...]] | None = None  # per later cut. None: those of the bundle at every cut
    codec_tables: FileInfo | None = None  # fitted for its codecs, see `runtime.bundles.codec_tables`

    @property
    def exit_after(self) -> tuple[int, ...]:
        return tuple(exit_info.after for exit_info in self.exits)


class VariantInfo(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One row of the recorded predictions: a model at one exit, without loss or after one lossy payload.

    Without loss, `codec` is "exact" and `partition_point` is 0.
    """

    model: str
    resolution_px: int
    exit_branch: int
    partition_point: int
    codec: str
    accuracy: dict[str, float]  # mean score per split
    agreement_frac: float  # mean score on the validation split against the answers of the exact variant


class PayloadInfo(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """Size of the payload of one cut and codec over the validation split.

    Of a codec whose payloads refer to earlier ones, mean and deviation are those with a reference one frame old.
    """

    model: str
    resolution_px: int
    partition_point: int
    codec: str
    mean_bytes: float
    std_bytes: float
    #: Means of payloads that stand alone, then with a reference of each of the manifest's ages; (): no references.
    mean_bytes_by_age: tuple[float, ...] = ()
    chained: bool = False  # payloads refer to the one sent just before, see `runtime.codecs.streams`


class Manifest(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """Everything about a bundle except weights and predictions. Defaults are left out, so old digests stay valid."""

    format_version: int
    workload: str
    resolutions_px: tuple[int, ...]
    input_shapes: dict[int, tuple[int, ...]]  # of the u8 image sent at cut 0, per resolution
    image_codecs: tuple[str, ...]  # at cut 0
    tensor_codecs: tuple[str, ...]  # at later cuts
    sample_counts: dict[str, int]
    models: tuple[ModelInfo, ...]
    variants: tuple[VariantInfo, ...]
    payloads: tuple[PayloadInfo, ...]
    recorded: dict[str, FileInfo]  # per split
    training: dict[str, dict[str, Any]]  # configuration per model
    # A bundle with strides above 1 has lagged scores. The file keeps the old name, so that old digests stay valid.
    frame_strides: tuple[int, ...] = msgspec.field(default=(1,), name="frame_intervals")
    reference_ages: tuple[int, ...] = ()  # in frames, ascending: at which payloads with a reference were measured
    gates: tuple[float, ...] = ()  # that decisions may carry where the user names none, see `runtime.gating`
    # Of an adopted bundle, see `runtime.workloads.adopted`:
    adoption: FileInfo | None = None  # describes its workload
    truth: FileInfo | None = None  # of every frame of its footage

    def resolutions_of(self, model: ModelInfo) -> tuple[int, ...]:
        """The resolutions of a model, in pixels."""
        return self.resolutions_px if model.resolutions_px is None else model.resolutions_px

    def codecs_at(self, model: ModelInfo, cut: int) -> tuple[str, ...]:
        """The codecs of a model's payloads at a partition point before the last stage that runs."""
        if cut == 0:
            return self.image_codecs if model.image_codecs is None else model.image_codecs
        return self.tensor_codecs if model.tensor_codecs is None else model.tensor_codecs.get(cut, ())

    def codecs_of_kind(self, kind: Kind) -> tuple[str, ...]:
        """The names of all image or tensor codecs, those of the bundle first."""
        found = dict.fromkeys(self.image_codecs if kind == IMAGE else self.tensor_codecs)
        for model in self.models:
            cuts = range(1) if kind == IMAGE else range(1, len(model.stages))
            found |= {codec: None for cut in cuts for codec in self.codecs_at(model, cut)}
        return tuple(found)


def default_objects(entry: Entry) -> Entry:
    """The same entry with the defaults themselves in place of equal values, because only these are left out.

    Values that came from another process or a file are equal to the defaults, but other objects.
    """
    known = {field.name: field.default for field in msgspec.structs.fields(type(entry))}
    equal = {name: default for name, default in known.items() if getattr(entry, name) == default}
    return msgspec.structs.replace(entry, **equal)


def encode_manifest(manifest: Manifest) -> bytes:
    """The bytes of the file: keys in canonical order, indented for people and diffs."""
    return msgspec.json.format(_canonical(manifest), indent=1) + b"\n"


def manifest_digest(manifest: Manifest) -> str:
    """SHA-256 over the canonical form; white space in the file does not matter."""
    return hashlib.sha256(_canonical(manifest)).hexdigest()


def _canonical(manifest: Manifest) -> bytes:
    plain = msgspec.to_builtins(manifest, str_keys=True)
    return msgspec.json.encode(plain, order="deterministic")


def decode_manifest(data: bytes, source: str) -> Manifest:
    """The manifest in the bytes of a file; FailureError when they are not one of this version.

    ``source`` names the file in errors.
    """
    try:
        version = format_version(data)
        if version != FORMAT_VERSION:
            raise FailureError(
                f"{source}: bundle format {version}; expected {FORMAT_VERSION}; download or train the bundle again"
            )
        return msgspec.json.decode(data, type=Manifest)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise FailureError(f"{source} is not a bundle manifest: {error}") from None


class ManifestIndex:
    """Constant-time look-ups into a manifest."""

    def __init__(self, manifest: Manifest) -> None:
        self.manifest = manifest

    @cached_property
    def models(self) -> dict[str, ModelInfo]:
        return {model.name: model for model in self.manifest.models}

    @cached_property
    def variants(self) -> dict[tuple[str, int, int, int, str], int]:
        """Row of (model, resolution, exit, cut, codec); exact variants have cut 0 and codec "exact"."""
        return {
            (v.model, v.resolution_px, v.exit_branch, v.partition_point, v.codec): row
            for row, v in enumerate(self.manifest.variants)
        }

    @cached_property
    def payloads(self) -> dict[tuple[str, int, int, str], PayloadInfo]:
        return {(p.model, p.resolution_px, p.partition_point, p.codec): p for p in self.manifest.payloads}
