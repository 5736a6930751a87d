"""Measure the models of an adopted bundle, each in a process of its own, so that memory is given back."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from runtime.building.build import write_bundle
from runtime.building.measure import MeasuredModel, TrainedModel, measure_model, measurement_steps
from runtime.building.payload_sizes import image_codecs
from runtime.building.training_run import Piece, advance_of, measured_images, report_measured, run_pieces
from runtime.bundles.manifest import Manifest
from runtime.workloads.base import Workload
from runtime.workloads.registry import get_workload

if TYPE_CHECKING:
    from rich.progress import Progress


@dataclass(frozen=True)
class Measuring:
    """What is measured. The folder holds the description of the workload and the files of the models."""

    folder: Path
    models: tuple[TrainedModel, ...]
    samples: int  # per split
    jobs: int
    data_dir: Path | None = None

    def run(self, workload: Workload, progress: Progress) -> Manifest:
        """Measure all models and write the manifest; FailureError when a process fails."""
        pieces = [self._piece(model, workload) for model in self.models]
        measured = run_pieces(pieces, self.jobs, progress)
        images = measured_images(workload, image_codecs(workload), self.samples, progress)
        return write_bundle(self.folder, workload, [measured[model.name] for model in self.models], images)

    def _piece(self, model: TrainedModel, workload: Workload) -> Piece:
        return Piece(model.name, measurement_steps(workload, model.family), partial(_measure, self, model))


def _measure(plan: Measuring, model: TrainedModel, events: Any) -> None:
    """The main function of the process of one model."""

    def body() -> MeasuredModel:
        import torch

        torch.set_num_threads(1)
        workload = get_workload(str(plan.folder), plan.data_dir)
        return measure_model(plan.folder, workload, model, plan.samples, advance_of(events, model.name))

    report_measured(events, model.name, body)
