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
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import TYPE_CHECKING, Any

from controller.errors import FailureError
from runtime.building.build import write_bundle
from runtime.building.measure import MeasuredModel, TrainedModel, measure_model, measurement_steps
from runtime.building.payload_sizes import PayloadSizes, image_codecs, measure_images
from runtime.bundles.manifest import Manifest
from runtime.bundles.weights import save_weights
from runtime.decoders.given import give_all, given_references
from runtime.models.training import Scalars, TrainingConfig, train
from runtime.workloads.base import Workload
from runtime.workloads.registry import get_workload

if TYPE_CHECKING:
    from rich.progress import Progress

LOG_EVERY_STEPS = 20
_POLL_S = 0.5


@dataclass(frozen=True)
class TrainingPlan:
    """What to train, and the directory of the bundle."""

    workload: str  # as of --workload; the processes open it
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
    """A message from the process of one model to its parent."""

    name: str  # of the model
    done: float = 0.0  # completed epochs plus measurement steps
    doing: str = "train"
    scores: Scalars | None = None  # after an epoch
    measured: Any = None  # at the end: a `MeasuredModel`, or what else the body of a piece returns
    error: str | None = None


class ProcessReporter:
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

    def body() -> MeasuredModel:
        workload = get_workload(plan.workload, plan.data_dir)
        trained = _train(plan, family, workload, events)
        advance = advance_of(events, family, plan.config(family).total_epochs)
        return measure_model(plan.out, workload, trained, plan.max_samples, advance)

    report_measured(events, family, body)


def _train(plan: TrainingPlan, family: str, workload: Workload, events: Any) -> TrainedModel:
    """Train one family and write its weights."""
    task = workload.task_of(family, plan.seed)
    config = plan.config(family)
    reporter = ProcessReporter(family, task.steps_per_epoch, plan.logs, events)
    reporter.writer.add_text("configuration", json.dumps(asdict(config)))
    model = train(lambda: workload.build(family), task, config, reporter)
    reporter.writer.close()
    task.finish(model)
    file_name = f"{family}.safetensors"
    save_weights(model, plan.out / file_name)
    return TrainedModel(family, family, file_name, model.exit_after, asdict(config))


def advance_of(events: Any, name: str, done: int = 0) -> Callable[[str], None]:
    """Reports each step of a measurement as progress, after ``done`` completed steps."""
    steps = itertools.count(done)
    return lambda what: events.put(_Event(name, next(steps), f"measure at {what}"))


def report_measured(events: Any, name: str, body: Callable[[], Any]) -> None:
    """The end of every process of a model: report its measurements, or its error."""
    try:
        events.put(_Event(name, doing="done", measured=body()))
    except Exception as error:  # noqa: BLE001 - outermost frame of the process; the parent reports the error
        events.put(_Event(name, error=f"{type(error).__name__}: {error}"))
        raise SystemExit(1) from None


@dataclass(frozen=True)
class Piece:
    """The work on one model, in a process of its own."""

    name: str
    total: float  # completed epochs plus measurement steps at the end
    body: Callable[[Any], None]  # called with the queue of events


def training_piece(plan: TrainingPlan, family: str, workload: Workload) -> Piece:
    """Train and measure one family."""
    total = plan.config(family).total_epochs + measurement_steps(workload, family)
    return Piece(family, total, partial(_train_and_measure, plan, family))


def run_plan(plan: TrainingPlan, progress: Progress) -> Manifest:
    """Train and measure every family, and write the bundle into `plan.out`; FailureError when a family fails."""
    plan.out.mkdir(parents=True, exist_ok=True)
    workload = get_workload(plan.workload, plan.data_dir)
    workload.sample_count("train")  # downloads the data before the processes start
    measured = run_pieces([training_piece(plan, family, workload) for family in plan.families], plan.jobs, progress)
    images = measured_images(workload, image_codecs(workload), plan.max_samples, progress)
    return write_bundle(plan.out, workload, [measured[family] for family in plan.families], images)


def measured_images(
    workload: Workload, codecs: Sequence[str], max_samples: int | None, progress: Progress
) -> PayloadSizes:
    """The sizes of all images, with a progress bar."""
    if not codecs:
        return PayloadSizes()
    bar = progress.add_task("images", total=len(workload.resolutions_px))

    def advance(what: str) -> None:
        progress.update(bar, advance=1, description=f"images: measure at {what}")

    return measure_images(workload, max_samples, advance, codecs)


def run_pieces(pieces: Sequence[Piece], jobs: int, progress: Progress) -> dict[str, Any]:
    """Run every piece in a process, at most ``jobs`` at a time; FailureError when one fails."""
    board = _Board(pieces, progress)
    context = multiprocessing.get_context("spawn")  # a fork of a process that ran torch may hang
    events = context.Queue()
    waiting = list(pieces)
    running: dict[str, BaseProcess] = {}
    try:
        while len(board.measured) < len(pieces):
            while waiting and len(running) < jobs:
                piece = waiting.pop(0)
                running[piece.name] = context.Process(target=_run, args=(given_references(), piece, events))
                running[piece.name].start()
            ended = [name for name, process in running.items() if process.exitcode is not None]
            board.follow(events)
            for name in ended:  # all their events were read above
                if name not in board.measured:
                    raise FailureError(f"the process of {name} ended before it was done")
                del running[name]
    finally:
        _stop(list(running.values()))
    return board.measured


def _run(code: Sequence[str], piece: Piece, events: Any) -> None:
    """The main function of a process. ``code``: what the user gave to the parent, see `runtime.decoders.given`."""
    give_all(*code)
    piece.body(events)


class _Board:
    """The progress bar of each model, and its measurements when they are complete."""

    def __init__(self, pieces: Sequence[Piece], progress: Progress) -> None:
        self._progress = progress
        self._bars = {piece.name: progress.add_task(piece.name, total=piece.total) for piece in pieces}
        self._totals = {piece.name: piece.total for piece in pieces}
        self.measured: dict[str, Any] = {}

    def follow(self, events: Any) -> None:
        """Handle the events of the next half second; FailureError when a process failed."""
        deadline_s = time.monotonic() + _POLL_S
        while (left_s := deadline_s - time.monotonic()) > 0:
            try:
                self._take(events.get(timeout=left_s))
            except queue.Empty:
                return

    def _take(self, event: _Event) -> None:
        if event.error is not None:
            raise FailureError(f"the work on {event.name} failed: {event.error}")
        done = event.done
        if event.measured is not None:
            self.measured[event.name] = event.measured
            done = self._totals[event.name]
        label = f"{event.name}: {event.doing}"
        if event.scores:
            label += f" (best exit {max(event.scores.values()):.2%})"
        self._progress.update(self._bars[event.name], completed=done, description=label)


def _stop(processes: Sequence[BaseProcess]) -> None:
    started = [process for process in processes if process.pid is not None]  # a signal may interrupt a start
    for process in started:
        process.terminate()
    for process in started:
        process.join()
