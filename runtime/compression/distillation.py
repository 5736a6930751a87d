"""Fine-tuning towards the model that was compressed: its outputs are targets too (Hinton et al., 2015).

The loss gains the squared difference of every exit's outputs to those of the teacher, relative to the variance of the
teacher's. It needs no labels and no temperature, so it serves logits of classes and maps of detectors alike.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from runtime.models.arithmetic import training_arithmetic
from runtime.models.detector_parts import Peaks
from runtime.models.stages import BranchyModel, channels_last
from runtime.models.training import Group, Scalars, TrainingTask

TEACHER_WEIGHT = 2.0  # of the mean relative difference


class Distillation:
    """A `TrainingTask` that adds the teacher's outputs to the targets of another one."""

    def __init__(self, task: TrainingTask, teacher: BranchyModel) -> None:
        self._task = task
        self._teacher = channels_last(with_maps(teacher.eval().requires_grad_(False)))
        self.steps_per_epoch = task.steps_per_epoch

    def steps(self, epoch: int) -> Iterator[Sequence[Group]]:
        for groups in self._task.steps(epoch):
            yield [replace(group, targets=(group.targets, self._outputs(group.inputs))) for group in groups]

    @torch.no_grad()
    def _outputs(self, inputs: Tensor) -> list[Tensor]:
        with training_arithmetic():
            return [output.float() for output in self._teacher.all_exits(inputs)]

    def loss(self, outputs: list[Tensor], targets: Any) -> tuple[Tensor, Scalars]:
        own_targets, taught = targets
        loss, scalars = self._task.loss(outputs, own_targets)
        parts = [((mine - its) ** 2).mean() / its.var() for mine, its in zip(outputs, taught, strict=True)]
        difference = torch.stack(parts).mean()
        return loss + TEACHER_WEIGHT * difference, scalars | {"loss/to_teacher": difference.item()}

    def evaluate(self, model: BranchyModel) -> Scalars:
        return self._task.evaluate(model)

    def finish(self, model: BranchyModel) -> None:
        self._task.finish(model)


def with_maps(model: BranchyModel) -> BranchyModel:
    """Let the exits of a detector give maps in place of their peaks, in place; returns the model."""
    for part in model.modules():
        if isinstance(part, Peaks):
            part.train()
    return model
