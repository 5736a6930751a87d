"""Run `mecpilot models compress`: a new bundle with the models of an existing one and compressed variants of some.

Each variant is made and measured in a process of its own, as trained models are. Everything that was recorded of the
other models stays.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from controller.errors import FailureError, UsageError
from runtime.building.build import write_bundle
from runtime.building.existing import check_same_samples, known_images, known_models
from runtime.building.extension import copy_files
from runtime.building.measure import MeasuredModel, measure_model, measurement_steps
from runtime.building.training_run import Piece, ProcessReporter, advance_of, report_measured, run_pieces
from runtime.bundles.bundle import Bundle
from runtime.bundles.manifest import LOSSLESS, Manifest, VariantInfo
from runtime.compression.eight_bits import missing_eight_bits
from runtime.compression.fine_tuning import Variant, check_compressible, check_made_from, write_variant
from runtime.compression.pruning import missing_pruning
from runtime.models.training import TrainingConfig
from runtime.workloads.base import Workload
from runtime.workloads.registry import get_workload

if TYPE_CHECKING:
    from rich.progress import Progress


#: A variant with a smaller share of its model's score is refused.
LEAST_SCORE_FRAC = 0.5


@dataclass(frozen=True)
class CompressionPlan:
    """What to compress, and the directory of the new bundle."""

    base: Bundle
    workload: str  # a name or package.module:Class; the processes import it
    out: Path
    variants: tuple[Variant, ...]
    seed: int = 0
    epochs: int | None = None  # overrides each scheme's default
    jobs: int = 2
    data_dir: Path | None = None
    made: Path | None = None  # folder with the files of the variants, made earlier; None: they are made now

    @property
    def max_samples(self) -> int:
        """Samples per split to measure on: those of the existing bundle."""
        return max(self.base.manifest.sample_counts.values())

    def source(self, variant: Variant) -> Path:
        """The weights of the model that is compressed."""
        return self.base.directory / variant.base.file.name

    def base_score(self, variant: Variant) -> float:
        """Recorded score of the model that is compressed."""
        return score_of(row for row in self.base.manifest.variants if row.model == variant.base.name)

    def check(self, workload: Workload) -> None:
        """UsageError when the plan cannot be carried out."""
        check_same_samples(self.base, workload)
        names = [variant.name for variant in self.variants]
        if not names:
            raise UsageError("nothing to compress; expected at least one --model and one --scheme")
        if taken := [name for name in names if name in self.base.model_names or names.count(name) > 1]:
            raise UsageError(f"the bundle would have two models {taken[0]!r}; expected a new one")
        for variant in self.variants:
            check_compressible(variant, self.source(variant))
            if self.made is not None:
                check_made_from(variant, self.made / variant.file_name)
        if self.base.is_adopted and any(variant.scheme.trains for variant in self.variants):
            raise UsageError("models of an adopted bundle are not fine-tuned; expected --scheme int8")
        if why := self._missing():
            raise UsageError(why)

    def _missing(self) -> str:
        """What to install first, or ""."""
        schemes = [variant.scheme for variant in self.variants]
        if (
            self.made is None
            and any(scheme.kept_macs_frac is not None for scheme in schemes)
            and (why := missing_pruning())
        ):
            return why
        return "" if all(scheme.trains for scheme in schemes) else missing_eight_bits()


def run_compression(plan: CompressionPlan, progress: Progress) -> Manifest:
    """Write the new bundle, or nothing; UsageError when the plan is wrong, FailureError when a process fails."""
    workload = get_workload(plan.workload, plan.data_dir)
    plan.check(workload)
    workload.sample_count("train")  # downloads the data before the processes start
    with _whole_or_nothing(plan.out):
        copy_files(plan.base, plan.out)
        measured = run_pieces([_piece(plan, variant, workload) for variant in plan.variants], plan.jobs, progress)
        models = [*known_models(plan.base), *(measured[variant.name] for variant in plan.variants)]
        return write_bundle(plan.out, workload, models, known_images(plan.base))


@contextmanager
def _whole_or_nothing(out: Path) -> Iterator[None]:
    """A new folder that goes again when the block fails; what a user had in an existing one stays."""
    existed = out.exists()
    out.mkdir(parents=True, exist_ok=True)
    try:
        yield
    except BaseException:
        if not existed:
            shutil.rmtree(out, ignore_errors=True)
        raise


def _piece(plan: CompressionPlan, variant: Variant, workload: Workload) -> Piece:
    work = _Work.of(plan, variant)
    total = work.epochs + measurement_steps(workload, variant.base.family)
    return Piece(variant.name, total, partial(_compress_and_measure, work))


@dataclass(frozen=True)
class _Work:
    """What the process of one variant needs. An open bundle is not sent to it."""

    variant: Variant
    source: Path
    out: Path
    workload: str
    data_dir: Path | None
    config: TrainingConfig
    made: Path | None
    max_samples: int
    base_score: float

    @staticmethod
    def of(plan: CompressionPlan, variant: Variant) -> _Work:
        where = (plan.source(variant), plan.out, plan.workload, plan.data_dir)
        return _Work(
            variant,
            *where,
            variant.config(plan.seed, plan.epochs),
            plan.made,
            plan.max_samples,
            plan.base_score(variant),
        )

    @property
    def trains(self) -> bool:
        return self.made is None and self.variant.scheme.trains

    @property
    def epochs(self) -> int:
        return self.config.total_epochs if self.trains else 0


def _compress_and_measure(work: _Work, events: Any) -> None:
    """The main function of the process of one variant."""
    variant = work.variant

    def body() -> MeasuredModel:
        workload = get_workload(work.workload, work.data_dir)
        if work.made is None:
            make_reporter = partial(_reporter, work, events)
            write_variant(variant, work.source, work.out, workload, work.config, make_reporter)
        else:
            shutil.copyfile(work.made / variant.file_name, work.out / variant.file_name)
        trained = variant.trained(work.config if work.trains else None)
        measured = measure_model(
            work.out, workload, trained, work.max_samples, advance_of(events, variant.name, work.epochs)
        )
        check_alive(measured, work.base_score)
        return measured

    report_measured(events, variant.name, body)


def check_alive(measured: MeasuredModel, base_score: float) -> None:
    """FailureError when the variant answers nothing right any more; the last exit at the first resolution counts.

    Pruned detectors are known to detect nothing where the training after it was too short.
    """
    score = score_of(measured.variants)
    if score < LEAST_SCORE_FRAC * base_score:
        raise FailureError(
            f"{measured.info.name} scores {score:.2f} on validation samples, its model {base_score:.2f}; expected at "
            f"least {LEAST_SCORE_FRAC:g} of that: take a milder scheme or more --epochs"
        )


def score_of(variants: Iterable[VariantInfo]) -> float:
    """Validation score of the last exit at the first resolution, without loss."""
    exact = [variant for variant in variants if variant.codec == LOSSLESS]
    first = [variant for variant in exact if variant.resolution_px == exact[0].resolution_px]
    return first[-1].accuracy["validation"]


def _reporter(work: _Work, events: Any, steps_per_epoch: int) -> ProcessReporter:
    reporter = ProcessReporter(work.variant.name, steps_per_epoch, work.out / "logs", events)
    reporter.writer.add_text("configuration", str(asdict(work.config)))
    return reporter
