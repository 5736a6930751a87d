"""Measure the models of an adopted bundle, in processes, so that memory is given back.

Each split of each model is a piece of work of its own: the whole model takes longer than all its relatives together,
and so two cores share it.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from runtime.building.build import write_bundle
from runtime.building.measure import SplitRun, TrainedModel, measured_of, run_split
from runtime.building.payload_sizes import image_codecs
from runtime.building.split_frames import RECORDED_SPLITS
from runtime.building.training_run import Piece, advance_of, measured_images, report_measured, run_pieces
from runtime.bundles.manifest import Manifest
from runtime.workloads.base import Workload
from runtime.workloads.family_decisions import resolutions_of
from runtime.workloads.registry import get_workload
from runtime.workloads.types import Split

if TYPE_CHECKING:
    from rich.progress import Progress


@dataclass(frozen=True)
class Measuring:
    """What is measured. The folder holds the description of the workload and the files of the models."""

    folder: Path
    models: tuple[TrainedModel, ...]
    samples: int  # per split
    jobs: int  # processes at a time; 0: all is done in this one

    def run(self, workload: Workload, progress: Progress) -> Manifest:
        """Measure all models and write the manifest; FailureError when a process fails."""
        pieces = [self._piece(model, split, workload) for model in self.models for split in RECORDED_SPLITS]
        runs = run_pieces(pieces, self.jobs, progress) if self.jobs else self._run_here(workload)
        images = measured_images(workload, image_codecs(workload), self.samples, progress)
        measured = [
            measured_of(
                self.folder,
                workload,
                model,
                {split: runs[_name(model, split)] for split in RECORDED_SPLITS},
                self.samples,
            )
            for model in self.models
        ]
        return write_bundle(self.folder, workload, measured, images)

    def _run_here(self, workload: Workload) -> dict[str, SplitRun]:
        """The same without processes."""
        each = ((model, split) for model in self.models for split in RECORDED_SPLITS)
        return {
            _name(model, split): run_split(self.folder, workload, model, split, self.samples) for model, split in each
        }

    def _piece(self, model: TrainedModel, split: Split, workload: Workload) -> Piece:
        steps = 2 * len(resolutions_of(workload, model.family))
        return Piece(_name(model, split), steps, partial(_measure, self, model, split))


def _name(model: TrainedModel, split: Split) -> str:
    return f"{model.name}, {split}"


def _measure(plan: Measuring, model: TrainedModel, split: Split, events: Any) -> None:
    """The main function of the process of one split of one model."""
    name = _name(model, split)

    def body() -> SplitRun:
        import torch

        torch.set_num_threads(1)
        workload = get_workload(str(plan.folder))
        return run_split(plan.folder, workload, model, split, plan.samples, advance_of(events, name))

    report_measured(events, name, body)
