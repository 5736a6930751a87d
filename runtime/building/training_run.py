"""Run `mecpilot models train`: train and measure each family in a process of its own, then write the bundle.

A training uses one thread, because several threads would wait for each other on a busy machine. Instead, up to
``jobs`` families are trained in parallel. The result of a family depends only on its configuration and seed.
"""

from __future__ import annotations

import itertools
import json
import multiprocessing
import queue
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import TYPE_CHECKING, Any

from controller.errors import FailureError
from runtime.building.build import write_bundle
from runtime.building.measure import MeasuredModel, TrainedModel, measure_model, measurement_steps
from runtime.building.payload_sizes import measure_images
from runtime.bundles.manifest import Manifest
from runtime.bundles.weights import save_weights
from runtime.models.training import Scalars, TrainingConfig, train
from runtime.workloads.registry import get_workload

if TYPE_CHECKING:
    from rich.progress import Progress

LOG_EVERY_STEPS = 20
_POLL_S = 0.5


@dataclass(frozen=True)
class TrainingPlan:
    """What to train, and the directory of the bundle."""

    workload: str  # a name or package.module:Class; the processes import it
    out: Path
    families: tuple[str, ...]
    seed: int = 0
    epochs: int | None = None  # overrides each family's default
    jobs: int = 2
    data_dir: Path | None = None
    max_samples: int | None = None  # per split, for the measurement after the training

    @property
    def logs(self) -> Path:
        """Folder of the TensorBoard logs."""
        return self.out / "logs"

    def config(self, family: str) -> TrainingConfig:
        """The training configuration of a family."""
        default = TrainingConfig(seed=self.seed)
        family_epochs = get_workload(self.workload).training_epochs.get(family, default.epochs)
        return replace(default, epochs=self.epochs or family_epochs)


@dataclass(frozen=True)
class _Event:
    """A message from a training process to its parent."""

    family: str
    done: float = 0.0  # completed epochs plus measurement steps
    doing: str = "train"
    scores: Scalars | None = None  # after an epoch
    measured: MeasuredModel | None = None  # at the end
    error: str | None = None


class _ProcessReporter:
    """Writes TensorBoard logs and reports progress to the parent."""

    def __init__(self, family: str, steps_per_epoch: int, logs: Path, events: Any) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self._family = family
        self._steps_per_epoch = steps_per_epoch
        self._events = events
        self.writer = SummaryWriter(str(logs / family), purge_step=0)  # hides logs of an earlier run

    def step(self, step: int, scalars: Scalars) -> None:
        if step % LOG_EVERY_STEPS == 0:
            for name, value in scalars.items():
                self.writer.add_scalar(name, value, step)
            self._events.put(_Event(self._family, step / self._steps_per_epoch))

    def epoch(self, epoch: int, scalars: Scalars) -> None:
        for name, value in scalars.items():
            self.writer.add_scalar(name, value, (epoch + 1) * self._steps_per_epoch)
        self._events.put(_Event(self._family, epoch + 1, scores=scalars))


def _train_and_measure(plan: TrainingPlan, family: str, events: Any) -> None:
    """The main function of the process of one family."""
    try:
        workload = get_workload(plan.workload, plan.data_dir)
        task = workload.task_of(family, plan.seed)
        config = plan.config(family)
        reporter = _ProcessReporter(family, task.steps_per_epoch, plan.logs, events)
        reporter.writer.add_text("configuration", json.dumps(asdict(config)))
        model = train(lambda: workload.build(family), task, config, reporter)
        reporter.writer.close()
        task.finish(model)
        file_name = f"{family}.safetensors"
        save_weights(model, plan.out / file_name)
        trained = TrainedModel(family, family, file_name, model.exit_after, asdict(config))
        steps = itertools.count(config.total_epochs)

        def advance(what: str) -> None:
            events.put(_Event(family, next(steps), f"measure at {what}"))

        measured = measure_model(plan.out, workload, trained, plan.max_samples, advance)
        events.put(_Event(family, next(steps), "done", measured=measured))
    except Exception as error:  # noqa: BLE001 - outermost frame of the process; the parent reports the error
        events.put(_Event(family, error=f"{type(error).__name__}: {error}"))
        raise SystemExit(1) from None


def run_plan(plan: TrainingPlan, progress: Progress) -> Manifest:
    """Train and measure every family, and write the bundle into `plan.out`; FailureError when a family fails."""
    plan.out.mkdir(parents=True, exist_ok=True)
    workload = get_workload(plan.workload, plan.data_dir)
    workload.sample_count("train")  # downloads the data before the processes start
    board = _Board(plan, progress, measurement_steps(workload))
    context = multiprocessing.get_context("spawn")  # a fork of a process that ran torch may hang
    events = context.Queue()
    waiting = list(plan.families)
    running: dict[str, BaseProcess] = {}
    try:
        while len(board.measured) < len(plan.families):
            while waiting and len(running) < plan.jobs:
                family = waiting.pop(0)
                running[family] = context.Process(target=_train_and_measure, args=(plan, family, events))
                running[family].start()
            ended = [family for family, process in running.items() if process.exitcode is not None]
            board.follow(events)
            for family in ended:  # all their events were read above
                if family not in board.measured:
                    raise FailureError(f"training of {family} ended before it was done")
                del running[family]
    finally:
        _stop(list(running.values()))
    bar = progress.add_task("images", total=len(workload.resolutions_px))
    image_bytes = measure_images(
        workload,
        plan.max_samples,
        lambda what: progress.update(bar, advance=1, description=f"images: measure at {what}"),
    )
    return write_bundle(plan.out, workload, [board.measured[family] for family in plan.families], image_bytes)


class _Board:
    """The progress bar of each family, and its measurements when they are complete."""

    def __init__(self, plan: TrainingPlan, progress: Progress, measurement_steps: int) -> None:
        self._progress = progress
        self._bars = {
            family: progress.add_task(family, total=plan.config(family).total_epochs + measurement_steps)
            for family in plan.families
        }
        self.measured: dict[str, MeasuredModel] = {}

    def follow(self, events: Any) -> None:
        """Handle the events of the next half second; FailureError when a training failed."""
        deadline_s = time.monotonic() + _POLL_S
        while (left_s := deadline_s - time.monotonic()) > 0:
            try:
                self._take(events.get(timeout=left_s))
            except queue.Empty:
                return

    def _take(self, event: _Event) -> None:
        if event.error is not None:
            raise FailureError(f"training of {event.family} failed: {event.error}")
        if event.measured is not None:
            self.measured[event.family] = event.measured
        label = f"{event.family}: {event.doing}"
        if event.scores:
            label += f" (best exit {max(event.scores.values()):.2%})"
        self._progress.update(self._bars[event.family], completed=event.done, description=label)


def _stop(processes: Sequence[BaseProcess]) -> None:
    started = [process for process in processes if process.pid is not None]  # a signal may interrupt a start
    for process in started:
        process.terminate()
    for process in started:
        process.join()
