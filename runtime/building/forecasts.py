"""Run `mecpilot models add --forecast`: a new bundle with the scores of forecasts and the speeds of tracked objects,
which an older bundle lacks.

A forecast needs the answers themselves, and a bundle has only their scores. So every variant runs once more. Weights
and everything else that was recorded stay as they are.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

from controller.errors import UsageError
from runtime.building.build import write_bundle
from runtime.building.codec_fitting import Codecs
from runtime.building.existing import check_same_samples, known_images, known_models
from runtime.building.extension import copy_files
from runtime.building.measure import MeasuredModel, measure_forecasts, measurement_steps
from runtime.building.training_run import Piece, TrainingPlan, advance_of, report_measured, run_pieces
from runtime.bundles.bundle import Bundle
from runtime.bundles.manifest import Manifest, ModelInfo
from runtime.workloads.base import forecaster_of
from runtime.workloads.registry import get_workload

if TYPE_CHECKING:
    from rich.progress import Progress


def run_forecasts(base: Bundle, plan: TrainingPlan, progress: Progress) -> Manifest:
    """Write the new bundle into ``plan.out``; UsageError when there are no forecasts to add, FailureError when a
    process fails."""
    workload = get_workload(plan.workload, plan.data_dir)
    check_same_samples(base, workload)
    forecaster_of(workload)
    models = known_models(base)
    if all(map(_is_whole, models)):
        raise UsageError(f"the bundle {base.directory} has the scores and speeds of forecasts; expected one without")
    plan.out.mkdir(parents=True, exist_ok=True)
    copy_files(base, plan.out)
    lacking = [model.info for model in models if not _is_whole(model)]
    done = run_pieces(
        [_piece(base, plan, info, measurement_steps(workload, info.family)) for info in lacking], plan.jobs, progress
    )
    whole = [_with_forecast(model, done[model.info.name]) if model.info in lacking else model for model in models]
    return write_bundle(plan.out, workload, whole, known_images(base))


def _is_whole(model: MeasuredModel) -> bool:
    tables = model.tables.values()
    return all(table.lagged_forecast is not None and table.tracked_speed is not None for table in tables)


def _piece(base: Bundle, plan: TrainingPlan, info: ModelInfo, steps: int) -> Piece:
    codecs = {cut: base.manifest.codecs_at(info, cut) for cut in range(len(info.stages))}
    return Piece(info.name, steps, partial(_measure, plan, info, codecs))


def _measure(plan: TrainingPlan, info: ModelInfo, codecs: Codecs, events: Any) -> None:
    """The main function of the process of one model."""

    def body() -> MeasuredModel:
        workload = get_workload(plan.workload, plan.data_dir)
        advance = advance_of(events, info.name)
        return measure_forecasts(plan.out, workload, info, codecs, plan.max_samples, advance)

    report_measured(events, info.name, body)


def _with_forecast(known: MeasuredModel, again: MeasuredModel) -> MeasuredModel:
    """The known model with the scores and speeds of forecasts; both have the same variants in the same order."""
    assert len(known.variants) == len(again.variants), "the same codecs give the same variants"
    tables = {
        split: replace(table, lagged_forecast=new.lagged_forecast, tracked_speed=new.tracked_speed)
        for split, table, new in ((split, table, again.tables[split]) for split, table in known.tables.items())
    }
    return replace(known, tables=tables)
