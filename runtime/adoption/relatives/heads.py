"""Exit heads at some cuts of a foreign model, whose own stages stay as they are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from runtime.adoption.relatives.box_scores import calibrated, operating_point
from runtime.adoption.relatives.features import Features
from runtime.adoption.relatives.fitting import Pace, fit
from runtime.adoption.relatives.teacher import Teacher
from runtime.models.box_targets import TargetMaps, exit_loss
from runtime.models.exit_head import stride_of
from runtime.models.training import Scalars
from runtime.workloads.adopted.families import Answers, CutShapes, ExitSpec
from runtime.workloads.adopted.networks import exit_of
from runtime.workloads.boxes import Floats

HEAD_SHARES = (0.2, 0.4, 0.65)  # of the multiply-accumulates that heads are tried after
FURTHEST = 0.85  # a head later than this saves nothing
BATCH = 4  # frames of a step, of one resolution
GOOD_STRIDES = (8, 16)  # input pixels per cell of features that boxes are found in
MOST_STRIDE = 32
TEMPERATURE = 2.0  # of the whole model's logits (Hinton et al., 2015)


def head_specs(teacher: Teacher) -> list[ExitSpec]:
    """Up to three heads, where the whole model has done about a fifth, two fifths and two thirds of its work."""
    answers = teacher.answers
    assert answers is not None
    macs = teacher.macs_before
    possible = {
        cut: part
        for cut in range(1, teacher.stages)
        if macs[cut] <= FURTHEST and (part := _part_to_read(teacher.cut_shapes[cut], answers)) is not None
    }
    cuts = {min(possible, key=lambda cut: abs(macs[cut] - share)) for share in HEAD_SHARES if possible}
    return [ExitSpec(cut, teacher.cut_shapes[cut], possible[cut], _hidden(answers)) for cut in sorted(cuts)]


def _hidden(answers: Answers) -> int:
    return 32 if answers.classes <= 16 else 64


def _part_to_read(places: Sequence[CutShapes], answers: Answers) -> int | None:
    """Which tensor at a cut a head reads: the richest of those whose cells are neither too small nor too large."""
    shapes = places[0].tensors
    if not answers.boxes:
        maps = [index for index, shape in enumerate(shapes) if 2 <= len(shape) <= 3]
        return max(maps, key=lambda index: shapes[index][0] if len(shapes[index]) == 3 else 0, default=None)
    strides = {
        index: stride_of(places[0].picture, shape)
        for index, shape in enumerate(shapes)
        if len(shape) == 3 and min(shape[1:]) > 1
    }
    usable = [index for index, stride in strides.items() if stride <= MOST_STRIDE]
    return max(usable, key=lambda index: (strides[index] in GOOD_STRIDES, shapes[index][0]), default=None)


class HeadLesson:
    """Owns the targets of the training frames at each resolution. All heads learn at once."""

    def __init__(
        self,
        teacher: Teacher,
        specs: Sequence[ExitSpec],
        train: Mapping[int, Features],
        held_out: Mapping[int, Features],
    ) -> None:
        self._teacher, self._specs, self._train, self._held_out = teacher, specs, train, held_out
        self._answers = teacher.answers
        assert self._answers is not None
        self._targets = {px: self._targets_of(features, px, "train") for px, features in train.items()}

    def _targets_of(self, features: Features, px: int, split: Any) -> list[Any]:
        if self._teacher.has_boxes:
            return [self._teacher.boxes(index, px, split) for index in features.indices]
        rows = range(len(features.indices))
        logits = [
            self._teacher.finished(features.at(self._teacher.stages, [row]), self._teacher.stages) for row in rows
        ]
        return [torch.from_numpy(each[0]) for each in logits]

    def batch(self, rng: np.random.Generator) -> Any:
        px = int(rng.choice(list(self._train)))
        rows = rng.choice(len(self._targets[px]), min(BATCH, len(self._targets[px])), replace=False)
        inputs = [self._train[px].at(spec.after, rows) for spec in self._specs]
        return px, inputs, [self._targets[px][row] for row in rows]

    def loss(self, module: nn.Module, batch: Any) -> tuple[Tensor, Scalars]:
        px, inputs, targets = batch
        assert isinstance(module, nn.ModuleList)
        outputs = [head(x).float() for head, x in zip(module, inputs, strict=True)]
        loss = output_loss(outputs, targets, self._answers)
        return loss, {f"loss/{px}px": loss.item()}

    @torch.no_grad()
    def outputs(self, head: nn.Module, spec: ExitSpec, px: int) -> list[Any]:
        """Outputs of a head on the validation frames."""
        features = self._held_out[px]
        return [head(features.at(spec.after, [row]))[0].numpy() for row in range(len(features.indices))]

    def validate(self, module: nn.Module) -> float:
        assert isinstance(module, nn.ModuleList)
        px = self._teacher.widths_px[0]
        return float(np.mean([self._quality(head, spec, px) for head, spec in zip(module, self._specs, strict=True)]))

    def _quality(self, head: nn.Module, spec: ExitSpec, px: int) -> float:
        outputs = self.outputs(head, spec, px)
        if self._teacher.has_boxes:
            return operating_point(outputs, self.truths(px), self._teacher.size(px))[1]
        return self._teacher.score(np.stack(outputs), px, self._held_out[px].indices)

    def truths(self, px: int) -> list[Floats]:
        """The boxes of the validation frames on their pictures."""
        return [self._teacher.boxes(index, px, "validation") for index in self._held_out[px].indices]

    def finish(self, head: nn.Module, spec: ExitSpec) -> dict[int, float]:
        """Choose the operating thresholds of a head; returns its score at each resolution."""
        scores = {}
        for px, features in self._held_out.items():
            if self._teacher.has_boxes:
                calibrated(head, self.outputs(head, spec, px), self.truths(px), self._teacher.size(px))
            outputs = np.stack(self.outputs(head, spec, px)).astype(np.float32)
            scores[px] = self._teacher.score(outputs, px, features.indices)
        return scores


def output_loss(outputs: Sequence[Tensor], targets: Sequence[Any], answers: Answers | None) -> Tensor:
    """The mean loss of exits in training mode: boxes (n, 5) per sample, or logits (classes,) of the whole model."""
    assert answers is not None
    if not answers.boxes:
        taught = F.softmax(torch.stack(list(targets)) / TEMPERATURE, 1)
        return torch.stack([TEMPERATURE**2 * F.cross_entropy(each / TEMPERATURE, taught) for each in outputs]).mean()
    losses = []
    for output in outputs:
        maps = TargetMaps.of(targets, output.shape[-1], output.shape[-2], answers.classes)
        losses.append(sum(exit_loss(output, maps), torch.zeros(())))
    return torch.stack(losses).mean()


def train_heads(
    teacher: Teacher,
    specs: Sequence[ExitSpec],
    train: Mapping[int, Features],
    held_out: Mapping[int, Features],
    pace: Pace,
) -> tuple[list[nn.Module], list[dict[int, float]], int]:
    """The trained heads, the score of each at each resolution, and the steps that were done."""
    answers = teacher.answers
    assert answers is not None
    lesson = HeadLesson(teacher, specs, train, held_out)
    torch.manual_seed(pace.seed)
    heads, steps = fit(nn.ModuleList(exit_of(spec, answers) for spec in specs), lesson, pace)
    scores = [lesson.finish(head, spec) for head, spec in zip(heads, specs, strict=True)]
    return list(heads), scores, steps
