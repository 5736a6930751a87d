"""Open a bundle: verified models, the decision space over them, and recorded predictions. Device and MEC share one.

Opening reads the manifest and checks the SHA-256 of every file. Weights, predictions and the workload are loaded on
first use.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from copy import copy
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from controller.errors import FailureError, UsageError, unknown_name
from controller.records import NO_PAYLOAD, Decision
from controller.scenario import ScenarioRange
from controller.space import DecisionSpace
from runtime.bundles.codec_tables import load_codec_tables
from runtime.bundles.manifest import (
    COMPRESSED_FROM,
    LOSSLESS,
    MANIFEST_FILE,
    FileInfo,
    Manifest,
    ManifestIndex,
    ModelInfo,
    PayloadInfo,
    decode_manifest,
    manifest_digest,
)
from runtime.bundles.recorded import Recorded, load_recorded
from runtime.codecs.base import Codec
from runtime.codecs.several import codec_for
from runtime.codecs.streams import Tables
from runtime.files.reading import read_bounded
from runtime.files.shipped import shipped_dir
from runtime.protocol.wire import Held
from runtime.workloads.base import Workload, forecaster_of
from runtime.workloads.registry import (
    adopted_workload,
    get_workload,
    is_workload,
    workload_named,
    workload_reference,
)

if TYPE_CHECKING:
    from runtime.models.stages import BranchyModel

SHIPPED_DIR = shipped_dir("bundles")
#: The bundle for programs that name neither a bundle nor a workload.
DEFAULT_NAME = "campus"


def shipped_bundles() -> list[str]:
    """Names of the workloads whose bundle mecpilot ships."""
    return sorted(path.parent.name for path in SHIPPED_DIR.glob(f"*/{MANIFEST_FILE}"))


def open_bundle(workload_or_dir: str | Path | Bundle) -> Bundle:
    """Open the bundle of a workload (by name or ``package.module:Class``), or the bundle in a directory.

    A bundle holds the models of a workload, every legal decision about them, and recorded predictions. Opening it
    checks the SHA-256 of every file. An open bundle is returned unchanged. UsageError if there is no such bundle,
    FailureError if a file is damaged.
    """
    if isinstance(workload_or_dir, Bundle):
        return workload_or_dir
    if opened := _shipped_or_in(workload_or_dir):
        return opened
    name = str(workload_or_dir)
    if _names_workload(name):
        return _bundle_of(get_workload(name), None)
    known = [*shipped_bundles(), f"a directory with {MANIFEST_FILE}", "a workload as package.module:Class"]
    raise unknown_name("bundle", name, known)


def open_pair(
    bundle: str | Path | Bundle | None = None, workload: str | Workload | None = None, data: Path | None = None
) -> tuple[Bundle, Workload]:
    """Open a bundle and its workload; giving one of the two is enough. UsageError when they do not belong together.

    bundle: name of a shipped bundle, a directory, or an open bundle; default: the workload's, or campus.
    workload: a name, ``package.module:Class``, or an object.
    data: directory of the workload's data.
    """
    if workload is None and isinstance(bundle, str | None) and _names_workload(bundle or DEFAULT_NAME):
        workload, bundle = bundle or DEFAULT_NAME, None
    if workload is None:
        opened = open_bundle(bundle or DEFAULT_NAME)
        return opened, opened.work if data is None else opened.work_with(data)
    work = get_workload(workload, data) if isinstance(workload, str) else workload
    return _bundle_of(work, bundle), work


def _names_workload(name: str) -> bool:
    return is_workload(name) or (":" in name and not os.path.exists(name))


def _shipped_or_in(name_or_dir: str | Path) -> Bundle | None:
    """The shipped bundle of that name, or the bundle in that directory; None if there is neither."""
    name, directory = str(name_or_dir), Path(name_or_dir)
    if name in shipped_bundles():
        return Bundle(SHIPPED_DIR / name)
    if os.path.isdir(directory) and not os.access(directory, os.R_OK | os.X_OK):
        raise UsageError(f"bundle {directory}: Permission denied; expected a folder that can be read")
    return Bundle(directory) if os.path.isfile(directory / MANIFEST_FILE) else None


def _bundle_of(work: Workload, given: str | Path | Bundle | None) -> Bundle:
    """The given bundle, else the one that the workload names, with models built by the workload."""
    opened = open_bundle(given) if given else _shipped_or_in(work.bundle or SHIPPED_DIR / work.name)
    if opened is None:
        if work.description_sha256:
            raise FailureError(f"the adopted bundle {work.bundle} has no {MANIFEST_FILE}; adopt the model again")
        missing = f"there is no bundle at {work.bundle} for" if work.bundle else "mecpilot ships no bundle for"
        raise UsageError(
            f"{missing} the workload {work.name!r}; train one with `mecpilot models train`, "
            "then give its directory with --bundle or as the workload's `bundle`"
        )
    return opened.served_by(work)


def _fits(name: str, work: Workload) -> bool:
    """Whether a workload can use a bundle made for the named one: it has the same name or extends its class."""
    if name == work.name:
        return True
    return is_workload(name) and isinstance(work, type(workload_named(name)))


class Bundle:
    """Owns the files of one directory and the inference copies of its models.

    The models are built by the workload given to ``served_by``, else by the workload that the manifest names.
    FailureError if a file is missing or damaged.
    """

    def __init__(self, directory: Path) -> None:
        # A link may lead elsewhere by the time that a model is loaded; what was checked here is what counts.
        self.directory = directory = directory.resolve()
        self.manifest = _read_manifest(directory)
        self.digest = manifest_digest(self.manifest)
        self._work: Workload | None = None
        self._index = ManifestIndex(self.manifest)
        self._models: dict[str, BranchyModel] = {}
        self._tables: dict[str, dict[int, Tables]] = {}
        for file in self._files():
            _verify(directory, file)

    def served_by(self, work: Workload) -> Bundle:
        """The same bundle with models built by another workload; files are not checked again.

        UsageError if the bundle was made for a different workload.
        """
        if self._work is work:
            return self
        if not self.fits(work):
            other = f"another adoption named {work.name!r}" if work.name == self.workload else repr(work.name)
            raise UsageError(f"the bundle {self.directory} is for workload {self.workload!r}; expected {other}")
        served = copy(self)
        served._work, served._models = work, {}
        served.__dict__.pop("default_range", None)
        return served

    def fits(self, work: Workload) -> bool:
        """Whether a workload can use this bundle: an adopted one only if it has the same description."""
        own = self.manifest.adoption
        if own is not None or work.description_sha256:
            return own is not None and work.description_sha256 == own.sha256
        return _fits(self.workload, work)

    def _files(self) -> Iterator[FileInfo]:
        yield from (model.file for model in self.manifest.models)
        yield from (model.codec_tables for model in self.manifest.models if model.codec_tables is not None)
        yield from self.manifest.recorded.values()
        yield from (file for file in (self.manifest.adoption, self.manifest.truth) if file is not None)

    @property
    def file_names(self) -> tuple[str, ...]:
        """The files that the manifest names."""
        return tuple(file.name for file in self._files())

    @cached_property
    def held(self) -> Held:
        """The digests that device and MEC compare at the handshake."""
        return Held(self.workload, self.digest, self.space.digest)

    @property
    def workload(self) -> str:
        """Name of the workload that the models were trained for."""
        return self.manifest.workload

    @property
    def work(self) -> Workload:
        """The workload object. UsageError, with the way to register it, if the workload is not known here."""
        if self._work is None:
            if self.is_adopted:
                self._work = adopted_workload(self.directory)
            elif not is_workload(self.workload):
                raise UsageError(
                    f"the bundle {self.directory} is of workload {self.workload!r}, which is not registered here; name "
                    "it as package.module:Class, or install it as an entry point of group mecpilot.workloads"
                )
            else:
                self._work = workload_named(self.workload)
        return self._work

    def work_with(self, data: Path) -> Workload:
        """A workload for this bundle whose data is at a path that the user gives."""
        if self.is_adopted:
            return adopted_workload(self.directory, data)
        return workload_named(self.workload, data)

    @property
    def is_adopted(self) -> bool:
        """Whether the bundle carries the description of its workload (`runtime.workloads.adopted`)."""
        return self.manifest.adoption is not None

    @property
    def reference(self) -> str:
        """The value of --workload with which another process finds the workload of this bundle."""
        return str(self.directory) if self.is_adopted else workload_reference(self.work.name)

    @cached_property
    def default_range(self) -> ScenarioRange:
        """Range of the conditions under which the workload usually runs."""
        return self.work.scenario_range()

    @property
    def compressed_models(self) -> frozenset[str]:
        """Names of the models that `mecpilot models compress` made from others."""
        return frozenset(name for name, how in self.manifest.training.items() if COMPRESSED_FROM in how)

    @property
    def model_names(self) -> tuple[str, ...]:
        return tuple(model.name for model in self.manifest.models)

    def info(self, model: str) -> ModelInfo:
        """The manifest's entry of a model; UsageError for an unknown name."""
        try:
            return self._index.models[model]
        except KeyError:
            raise unknown_name("model", model, self.model_names) from None

    def model(self, name: str) -> BranchyModel:
        """The inference copy of a model: batch norm folded, float32, evaluation mode. Loaded once."""
        if name not in self._models:
            from runtime.bundles.weights import load_for_inference

            info = self.info(name)
            self._models[name] = load_for_inference(
                self.directory / info.file.name, self.work.build, info.family, info.exit_after
            )
        return self._models[name]

    def codec_tables(self, model: str, resolution_px: int) -> Tables:
        """What was fitted for the stream codecs of a model at a resolution, for their senders and receivers.

        Empty where nothing was fitted. Loaded once; FailureError if the file is damaged.
        """
        if model not in self._tables:
            file = self.info(model).codec_tables
            self._tables[model] = {} if file is None else load_codec_tables(self.directory / file.name)
        return self._tables[model].get(resolution_px, {})

    @cached_property
    def space(self) -> DecisionSpace:
        """Every legal decision: model, resolution, exit, cut 0..stages to that exit, codec, and frame stride."""
        decisions, stages, variants = [], [], []
        for decision, stages_to_exit in self._legal_decisions():
            decisions.append(decision)
            stages.append(stages_to_exit)
            variants.append(self.variant(decision))
        return DecisionSpace(tuple(decisions), np.array(stages, dtype=np.int64), np.array(variants, dtype=np.int64))

    def _legal_decisions(self) -> Iterator[tuple[Decision, int]]:
        for model in self.manifest.models:
            for px in self.manifest.resolutions_of(model):
                for exit_branch, after in enumerate(model.exit_after):
                    for cut in range(after + 1):
                        for codec in (NO_PAYLOAD,) if cut == after else self.manifest.codecs_at(model, cut):
                            for stride in self.manifest.frame_strides:
                                yield Decision(model.name, px, exit_branch, cut, codec, stride), after

    def variant(self, decision: Decision) -> int:
        """Row of the recorded predictions for a decision; UsageError if there is none."""
        d, rows = decision, self._index.variants
        lossy = rows.get((d.model, d.resolution_px, d.exit_branch, d.partition_point, d.payload))
        return self.exact_variant(d.model, d.resolution_px, d.exit_branch) if lossy is None else lossy

    def exact_variant(self, model: str, resolution_px: int, exit_branch: int) -> int:
        """Row of the recorded predictions of an exit without loss; UsageError if there is none."""
        row = self._index.variants.get((model, resolution_px, exit_branch, 0, LOSSLESS))
        if row is None:
            raise UsageError(
                f"exit {exit_branch} of {model} at {resolution_px} px has no recorded predictions in {self.directory}"
            )
        return row

    def payload(self, decision: Decision) -> PayloadInfo:
        """Mean and deviation of the payload's bytes over the validation split; 0 when the device answers alone."""
        key = decision.payload_key
        if decision.payload == NO_PAYLOAD:
            return PayloadInfo(*key, 0.0, 0.0)
        return self._index.payloads[key]

    def payload_shape(self, model: str, resolution_px: int, partition_point: int) -> tuple[int, ...]:
        """Shape of the array that is sent: the u8 image (h, w[, 3]) at cut 0, else float32 (channels, h, w), or
        (values,) where several tensors are packed into one."""
        if partition_point == 0:
            return self.manifest.input_shapes[resolution_px]
        return self.info(model).stages[partition_point - 1].shape[resolution_px]

    def codec(self, decision: Decision) -> Codec:
        """The codec of a decision's payload, made for the tensors at its cut. UsageError if it is not known here."""
        d = decision
        stage = self.info(d.model).stages[d.partition_point - 1] if d.partition_point else None
        return codec_for(d.payload, () if stage is None else stage.parts.get(d.resolution_px, ()))

    @property
    def frame_shape(self) -> tuple[int, ...]:
        """Shape of the workload's frame: (h, w) grey or (h, w, 3) colour."""
        if self.is_adopted:
            return self.work.frame_shape
        return self.manifest.input_shapes[max(self.manifest.input_shapes)]

    def forecasts(self, wanted: bool | None, workload: Workload) -> bool:
        """Whether answers of a workload move on: as wanted, by default if the bundle says what forecasts score.

        UsageError if they shall, and the workload has no forecaster.
        """
        if wanted:
            forecaster_of(workload)
        if wanted is not None:
            return wanted
        return workload.forecaster() is not None and self.recorded("validation").lagged_forecast is not None

    def recorded(self, split: str) -> Recorded:
        """Recorded predictions of the split "validation" or "test". FailureError if the file is damaged."""
        if split not in self.manifest.recorded:
            raise unknown_name("split", split, tuple(self.manifest.recorded))
        return load_recorded(
            self.directory / self.manifest.recorded[split].name,
            len(self.manifest.variants),
            self.manifest.sample_counts[split],
            tuple(self._index.payloads),
            tuple(key for key, payload in self._index.payloads.items() if payload.mean_bytes_by_age),
            len(self.manifest.reference_ages),
        )


def _read_manifest(directory: Path) -> Manifest:
    path = directory / MANIFEST_FILE
    try:
        return decode_manifest(read_bounded(path), str(path))
    except OSError as error:
        raise FailureError(f"cannot read the bundle manifest {path}: {error.strerror}") from None


def _verify(directory: Path, file: FileInfo) -> None:
    path = directory / file.name
    if Path(file.name).name != file.name:
        raise FailureError(f"the bundle in {directory} names the file {file.name!r}; expected a plain name")
    try:
        with path.open("rb") as stream:
            digest = hashlib.file_digest(stream, "sha256").hexdigest()
    except OSError as error:
        raise FailureError(f"cannot read the bundle's {path}: {error.strerror}") from None
    if digest != file.sha256:
        raise FailureError(
            f"{path} has sha256 {digest[:12]}..., but the manifest states {file.sha256[:12]}...: "
            "the bundle is damaged or was changed; download or train it again"
        )
