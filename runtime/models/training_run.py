"""How does `mecpilot models train` run? Families in parallel processes, then one bundle of all of them.

A model's training is single-threaded (threads that wait for one another waste a busy machine), so families are
trained side by side, as many at a time as there are jobs. The result of a family depends only on its configuration and
seed, not on what runs beside it.
"""

from __future__ import annotations

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
from runtime.bundle_build import TrainedModel, measurement_steps, write_bundle
from runtime.manifest import Manifest
from runtime.models.training import Scalars, TrainingConfig, train
from runtime.models.weights import save_weights
from runtime.workloads.base import get_workload

if TYPE_CHECKING:
    from rich.progress import Progress

LOG_EVERY_STEPS = 20
_POLL_S = 0.5


@dataclass(frozen=True)
class TrainingPlan:
    """What one call trains, and where it puts it."""

    workload: str
    out: Path
    families: tuple[str, ...]
    seed: int = 0
    epochs: int | None = None  # instead of each family's own number
    jobs: int = 2
    data_dir: Path | None = None
    max_samples: int | None = None  # limits what is measured afterwards

    @property
    def logs(self) -> Path:
        return self.out / "logs"

    def config(self, family: str) -> TrainingConfig:
        """The family's configuration under this plan."""
        epochs = self.epochs or get_workload(self.workload).training_epochs[family]
        return replace(TrainingConfig(seed=self.seed), epochs=epochs)


@dataclass(frozen=True)
class _Event:
    """What a training process tells its parent."""

    family: str
    epochs_done: float
    scalars: Scalars
    error: str | None = None


class _ProcessReporter:
    """Writes TensorBoard logs and tells the parent how far the training is."""

    def __init__(self, family: str, steps_per_epoch: int, logs: Path, events: Any) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self._family = family
        self._steps_per_epoch = steps_per_epoch
        self._events = events
        self.writer = SummaryWriter(str(logs / family))

    def step(self, step: int, scalars: Scalars) -> None:
        if step % LOG_EVERY_STEPS == 0:
            for name, value in scalars.items():
                self.writer.add_scalar(name, value, step)
            self._events.put(_Event(self._family, step / self._steps_per_epoch, {}))

    def epoch(self, epoch: int, scalars: Scalars) -> None:
        for name, value in scalars.items():
            self.writer.add_scalar(name, value, (epoch + 1) * self._steps_per_epoch)
        self._events.put(_Event(self._family, epoch + 1, scalars))


def _train_family(plan: TrainingPlan, family: str, events: Any) -> None:
    """Body of one training process."""
    try:
        workload = get_workload(plan.workload, plan.data_dir)
        task = workload.training_task(plan.seed)
        config = plan.config(family)
        reporter = _ProcessReporter(family, task.steps_per_epoch, plan.logs, events)
        reporter.writer.add_text("configuration", json.dumps(asdict(config)))
        model = train(lambda: workload.build(family), task, config, reporter)
        reporter.writer.close()
        save_weights(model, plan.out / f"{family}.safetensors")
    except Exception as error:  # noqa: BLE001 - the process's outermost frame: its parent reports and stops
        events.put(_Event(family, 0.0, {}, f"{type(error).__name__}: {error}"))
        raise SystemExit(1) from None


def run_plan(plan: TrainingPlan, progress: Progress) -> Manifest:
    """Train every family, measure them, and write the bundle into `plan.out`."""
    plan.out.mkdir(parents=True, exist_ok=True)
    workload = get_workload(plan.workload, plan.data_dir)
    workload.sample_count("train")  # fetches the data once, before the processes start
    _train_all(plan, progress)
    models = [
        TrainedModel(
            name=family,
            family=family,
            file_name=f"{family}.safetensors",
            exit_after=workload.build(family).exit_after,
            training=asdict(plan.config(family)),
        )
        for family in plan.families
    ]
    bar = progress.add_task("measure", total=measurement_steps(workload, len(models)))

    def advance(what: str) -> None:
        progress.update(bar, advance=1, description=f"measure {what}")

    return write_bundle(plan.out, workload, models, plan.max_samples, advance)


def _train_all(plan: TrainingPlan, progress: Progress) -> None:
    context = multiprocessing.get_context("spawn")  # a forked child of a process that ran torch may hang
    events = context.Queue()
    bars = {f: progress.add_task(f"train {f}", total=plan.config(f).total_epochs) for f in plan.families}
    waiting = list(plan.families)
    running: dict[str, BaseProcess] = {}
    try:
        while waiting or running:
            while waiting and len(running) < plan.jobs:
                family = waiting.pop(0)
                running[family] = context.Process(target=_train_family, args=(plan, family, events))
                running[family].start()
            _show(events, bars, progress)
            for family in [f for f, process in running.items() if process.exitcode is not None]:
                _show(events, bars, progress)
                if running.pop(family).exitcode != 0:
                    raise FailureError(f"training of {family} ended before it was done")
    finally:
        _stop(list(running.values()))


def _show(events: Any, bars: dict[str, Any], progress: Progress) -> None:
    """Show what has been reported; wait a little when nothing was."""
    deadline_s = time.monotonic() + _POLL_S
    while (left_s := deadline_s - time.monotonic()) > 0:
        try:
            event: _Event = events.get(timeout=left_s)
        except queue.Empty:
            return
        if event.error is not None:
            raise FailureError(f"training of {event.family} failed: {event.error}")
        label = f"train {event.family}"
        if event.scalars:
            label += f" (best exit {max(event.scalars.values()):.2%})"
            progress.update(bars[event.family], completed=event.epochs_done, description=label)
        else:
            progress.update(bars[event.family], completed=event.epochs_done)


def _stop(processes: Sequence[BaseProcess]) -> None:
    for process in processes:
        process.terminate()
    for process in processes:
        process.join()
