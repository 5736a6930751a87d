"""The training loop for all exits of a branchy model. The workload provides the task.

The loop owns optimiser, schedule, averaging of weights and logs. The task owns data, augmentation, loss and
evaluation, so the same loop trains a classifier and a detector.

Every step has samples of several resolutions, whose batch norm statistics differ, but inference has one set of running
statistics for all of them. So the last part of the training freezes the running statistics, and the weights adapt to
them, as FixRes (Touvron et al., 2019) adapts to the test resolution. The trained network then equals its folded
inference copy. A second, shorter cycle of the learning rate (as in SGDR, Loshchilov and Hutter, 2017) starts from the
averaged weights of the first, with frozen statistics. It is called the polish.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from runtime.models.arithmetic import training_arithmetic
from runtime.models.stages import BranchyModel, channels_last

Scalars = dict[str, float]
#: A loss of one model's own activations, and scalars to log.
OwnLoss = Callable[[BranchyModel], tuple[Tensor, Scalars]]


@dataclass(frozen=True)
class TrainingConfig:
    """Hyper-parameters of one model's training."""

    epochs: int = 18  # of the first cycle
    polish_frac: float = 2 / 3  # epochs of the second cycle divided by those of the first; 0 omits the second cycle
    seed: int = 0
    peak_rate: float = 4e-3  # AdamW's learning rate after warm-up; cosine to zero from there
    polish_rate_frac: float = 0.5  # peak rate of the second cycle divided by that of the first
    weight_decay: float = 0.05
    warmup_frac: float = 0.1  # of a cycle's steps
    frozen_norm_frac: float = 0.2  # last part of the first cycle, in which batch norm statistics are frozen
    averaging_decay: float = 0.998  # of the exponential moving average of the weights, per step
    threads: int = 1  # several would wait for each other on a busy machine; train models in parallel instead

    @property
    def polish_epochs(self) -> int:
        return round(self.epochs * self.polish_frac)

    @property
    def total_epochs(self) -> int:
        return self.epochs + self.polish_epochs


@dataclass(frozen=True)
class Group:
    """Samples of one resolution within a step."""

    inputs: Tensor  # (batch, channels, h, w), what the model takes
    targets: Any
    weight: float  # share of the step's loss
    own_loss: OwnLoss | None = None  # added to the task's loss; for a penalty that the outputs do not show


class TrainingTask(Protocol):
    """The part of a training that the workload defines: data, loss and evaluation."""

    steps_per_epoch: int

    def steps(self, epoch: int) -> Iterator[Sequence[Group]]:
        """The groups of every step of one epoch. The same epoch and seed give the same groups."""
        ...

    def loss(self, outputs: list[Tensor], targets: Any) -> tuple[Tensor, Scalars]:
        """The joint loss of all exits, and scalars to log."""
        ...

    def evaluate(self, model: BranchyModel) -> Scalars:
        """Validation scores to log, for example `score/28px/exit0`."""
        ...

    def finish(self, model: BranchyModel) -> None:
        """Set values that are stored with the weights, such as thresholds chosen on validation samples."""
        ...


class Reporter(Protocol):
    """Receives the progress of a training."""

    def step(self, step: int, scalars: Scalars) -> None:
        """Called after each step with its losses."""
        ...

    def epoch(self, epoch: int, scalars: Scalars) -> None:
        """Called after each epoch with its validation scores."""
        ...


@dataclass(frozen=True)
class _Cycle:
    """One cycle of the learning rate: warm-up and decay."""

    epochs: range
    peak_rate: float
    frozen_from_frac: float  # share of the steps after which batch norm statistics are frozen


def train(
    build: Callable[[], BranchyModel], task: TrainingTask, config: TrainingConfig, reporter: Reporter
) -> BranchyModel:
    """Train a new model; returns it with averaged weights. Equal seeds give equal results on one kind of machine."""
    torch.manual_seed(config.seed)
    torch.set_num_threads(config.threads)
    first = _Cycle(range(config.epochs), config.peak_rate, 1.0 - config.frozen_norm_frac)
    model = _run_cycle(channels_last(build()), task, config, first, reporter)
    if config.polish_epochs == 0:
        return model
    polish_rate = config.peak_rate * config.polish_rate_frac
    polish = _Cycle(range(config.epochs, config.total_epochs), polish_rate, 0.0)
    return _run_cycle(model.requires_grad_(True), task, config, polish, reporter)


def _run_cycle(
    model: BranchyModel, task: TrainingTask, config: TrainingConfig, cycle: _Cycle, reporter: Reporter
) -> BranchyModel:
    """Train for one cycle with a new optimiser; returns a copy with averaged weights."""
    averaged = copy.deepcopy(model).requires_grad_(False)
    optimizer = new_optimizer(model, config)
    total_steps = len(cycle.epochs) * task.steps_per_epoch
    step = 0
    for epoch in cycle.epochs:
        model.train()
        for groups in task.steps(epoch):
            if step >= round(total_steps * cycle.frozen_from_frac):
                freeze_norm(model)
            rate = cycle.peak_rate * rate_factor(step, total_steps, config.warmup_frac)
            scalars = _train_step(model, optimizer, groups, task, rate)
            average_into(averaged, model, averaging_decay(step, config.averaging_decay))
            reporter.step(cycle.epochs.start * task.steps_per_epoch + step, scalars | {"rate": rate})
            step += 1
        averaged.eval()
        reporter.epoch(epoch, task.evaluate(averaged))
    return averaged


def new_optimizer(model: nn.Module, config: TrainingConfig) -> torch.optim.Optimizer:
    """AdamW without weight decay on norms and biases."""
    matrices = [p for p in model.parameters() if p.ndim > 1]
    vectors = [p for p in model.parameters() if p.ndim <= 1]
    groups = [
        {"params": matrices, "weight_decay": config.weight_decay},
        {"params": vectors, "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=config.peak_rate)


def rate_factor(step: int, total_steps: int, warmup_frac: float) -> float:
    """Factor of the learning rate: linear warm-up to 1, then half a cosine to 0."""
    warmup = max(1, round(total_steps * warmup_frac))
    if step < warmup:
        return (step + 1) / warmup
    progress = (step - warmup) / max(1, total_steps - warmup)
    return 0.5 * (1.0 + math.cos(math.pi * progress))


def averaging_decay(step: int, decay: float) -> float:
    """A smaller decay in the first steps, so that the average forgets the initial weights."""
    return min(decay, (1.0 + step) / (10.0 + step))


def _train_step(
    model: BranchyModel,
    optimizer: torch.optim.Optimizer,
    groups: Sequence[Group],
    task: TrainingTask,
    rate: float,
) -> Scalars:
    for group in optimizer.param_groups:
        group["lr"] = rate
    optimizer.zero_grad(set_to_none=True)
    logged: Scalars = {}
    for part in groups:
        loss, scalars = _group_loss(model, part, task)
        (part.weight * loss).backward()  # type: ignore[no-untyped-call]
        logged |= {f"{name}/{part.inputs.shape[-1]}px": value for name, value in scalars.items()}
    nn.utils.clip_grad_norm_(model.parameters(), 5.0)
    optimizer.step()
    return logged


def _group_loss(model: BranchyModel, part: Group, task: TrainingTask) -> tuple[Tensor, Scalars]:
    """The task's loss of a group, plus the model's own loss if the group has one."""
    with training_arithmetic():
        outputs = model.all_exits(part.inputs)
    loss, scalars = task.loss([output.float() for output in outputs], part.targets)
    if part.own_loss is None:
        return loss, scalars
    with training_arithmetic():
        own, own_scalars = part.own_loss(model)
    return loss + own, scalars | own_scalars


def freeze_norm(model: nn.Module) -> None:
    """Let batch norms keep their running statistics from now on, until the model is put into training mode."""
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.eval()


@torch.no_grad()
def average_into(averaged: nn.Module, model: nn.Module, decay: float) -> None:
    """Move the averaged weights towards those of the model, in place."""
    averages, weights = averaged.state_dict(), model.state_dict()
    floats = [name for name, value in averages.items() if value.is_floating_point()]
    torch._foreach_lerp_([averages[n] for n in floats], [weights[n] for n in floats], 1.0 - decay)
