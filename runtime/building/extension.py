"""Run `mecpilot models add`: a new bundle with the models of an existing one, and what its workload offers besides.

Families that the bundle lacks are trained and measured, or only measured where their weights are given. Models of the
bundle are measured with the codecs that were added to the workload. Everything that was recorded of them stays.
"""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from controller.errors import UsageError
from runtime.building.build import write_bundle
from runtime.building.codec_fitting import Codecs
from runtime.building.crops import copy_crops
from runtime.building.existing import (
    added_codecs,
    check_same_samples,
    known_images,
    known_models,
    with_added,
)
from runtime.building.measure import TrainedModel, measure_added, measure_model, measurement_steps
from runtime.building.payload_sizes import image_codecs
from runtime.building.training_run import (
    Piece,
    TrainingPlan,
    advance_of,
    measured_images,
    report_measured,
    run_pieces,
    training_piece,
)
from runtime.bundles.bundle import Bundle
from runtime.bundles.manifest import Manifest, ModelInfo
from runtime.workloads.base import Workload
from runtime.workloads.registry import get_workload

if TYPE_CHECKING:
    from rich.progress import Progress


@dataclass(frozen=True)
class Extension:
    """What is added to an existing bundle. ``plan`` names the new families and the directory of the new bundle."""

    base: Bundle
    plan: TrainingPlan
    trained: Bundle | None = None  # whose weights of the new families are taken; None: they are trained

    def codecs(self, workload: Workload) -> dict[str, Codecs]:
        """The added codecs of each model of the bundle; only models with any."""
        found = {info.name: added_codecs(self.base, info, workload) for info in self.base.manifest.models}
        return {name: codecs for name, codecs in found.items() if codecs}

    def check(self, workload: Workload) -> None:
        """UsageError when there is nothing to add, or it does not fit."""
        check_same_samples(self.base, workload)
        for family in self.plan.families:
            if family in self.base.model_names:
                raise UsageError(f"the bundle {self.base.directory} has a model {family!r}; expected a new family")
            if self.trained is not None:
                self.trained.info(family)  # UsageError when it is not there
        if not self.plan.families and not self.codecs(workload):
            raise UsageError(
                f"the bundle {self.base.directory} has all families and codecs of the workload {workload.name!r}; "
                "expected something to add"
            )


def missing_families(bundle: Bundle, workload: Workload) -> tuple[str, ...]:
    """The families of a workload that are not in a bundle."""
    known = {info.family for info in bundle.manifest.models}
    return tuple(family for family in workload.families if family not in known)


def run_extension(extension: Extension, progress: Progress) -> Manifest:
    """Write the new bundle; UsageError when it does not fit the existing one, FailureError when a process fails."""
    base, plan = extension.base, extension.plan
    workload = get_workload(plan.workload, plan.data_dir)
    extension.check(workload)
    plan.out.mkdir(parents=True, exist_ok=True)
    copy_files(base, plan.out)
    codecs = extension.codecs(workload)
    pieces = [_adding_piece(plan, base.info(name), added, workload) for name, added in codecs.items()]
    pieces += [_family_piece(extension, family, workload) for family in plan.families]
    done = run_pieces(pieces, plan.jobs, progress)
    models = [with_added(old, done[old.info.name]) if old.info.name in done else old for old in known_models(base)]
    images = known_images(base)
    known = {key[3] for key in images.infos}
    more = [codec for codec in image_codecs(workload) if codec not in known]
    images = images.joined(measured_images(workload, more, plan.max_samples, progress))
    return write_bundle(plan.out, workload, [*models, *(done[family] for family in plan.families)], images)


def copy_files(base: Bundle, out: Path) -> None:
    """Weights, codec tables and scores of crops; the rest is written anew."""
    for info in base.manifest.models:
        for file in (info.file, info.codec_tables):
            if file is not None and (base.directory / file.name).resolve() != (out / file.name).resolve():
                shutil.copyfile(base.directory / file.name, out / file.name)
    copy_crops(base, out)


def _adding_piece(plan: TrainingPlan, info: ModelInfo, codecs: Codecs, workload: Workload) -> Piece:
    total = measurement_steps(workload, info.family)
    return Piece(info.name, total, partial(_measure_added, plan, info, dict(codecs)))


def _family_piece(extension: Extension, family: str, workload: Workload) -> Piece:
    if extension.trained is None:
        return training_piece(extension.plan, family, workload)
    total = measurement_steps(workload, family)
    training = extension.trained.manifest.training.get(family, {})
    info = extension.trained.info(family)
    source = extension.trained.directory / info.file.name
    trained = TrainedModel(family, info.family, f"{family}.safetensors", info.exit_after, training)
    return Piece(family, total, partial(_measure_trained, extension.plan, trained, source))


def _measure_added(plan: TrainingPlan, info: ModelInfo, codecs: Codecs, events: Any) -> None:
    """The main function of the process of one model of the existing bundle."""

    def body() -> Any:
        workload = get_workload(plan.workload, plan.data_dir)
        return measure_added(plan.out, workload, info, codecs, plan.max_samples, advance_of(events, info.name))

    report_measured(events, info.name, body)


def _measure_trained(plan: TrainingPlan, trained: TrainedModel, source: Path, events: Any) -> None:
    """The main function of the process of one family whose weights are given."""

    def body() -> Any:
        shutil.copyfile(source, plan.out / trained.file_name)
        workload = get_workload(plan.workload, plan.data_dir)
        return measure_model(plan.out, workload, trained, plan.max_samples, advance_of(events, trained.name))

    report_measured(events, trained.name, body)
