"""A small student with exits for the device: it learns the answers to the footage, from pictures that are changed."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
import torch
from torch import Tensor, nn

from runtime.adoption.relatives.box_scores import calibrated, operating_point
from runtime.adoption.relatives.fitting import Pace, fit
from runtime.adoption.relatives.heads import output_loss
from runtime.adoption.relatives.teacher import Teacher, evenly
from runtime.models.stages import BranchyModel, channels_last
from runtime.models.training import Scalars
from runtime.workloads.adopted.families import StudentFamily
from runtime.workloads.adopted.networks import student
from runtime.workloads.augmentation import recolour, through_jpeg, view
from runtime.workloads.boxes import Floats
from runtime.workloads.inputs import pixels
from runtime.workloads.types import Image

PICTURE_BYTES = 384 << 20  # of the training pictures in memory
MOST_FRAMES = 1_000
CROP_PX = (384, 288)  # most width and height of a crop
STEP_PIXELS = 400_000  # of the crops of one resolution in one step
CROPS = (2, 8)  # least and most of them
ZOOM = (0.85, 1.3)  # range of scales, relative to the picture at that resolution
JPEG_FRAC = 0.15
JPEG_QUALITY = (5, 60)
SHIFT = 0.08  # most shift of a classifier's picture, as a share of its sides
_GRID = 32  # sides of crops are multiples


class StudentLesson:
    """Owns training pictures at the largest resolution, with their boxes or the whole model's logits."""

    def __init__(self, teacher: Teacher, family: StudentFamily) -> None:
        cv2.setNumThreads(1)
        self._teacher, self._answers = teacher, family.answers
        largest = teacher.widths_px[0]
        height, width = teacher.size(largest)
        count = teacher.work.sample_count("train")
        indices = evenly(count, min(MOST_FRAMES, max(1, PICTURE_BYTES // (height * width * family.colours))))
        self._pictures = teacher.pictures(indices, largest, "train")
        if teacher.has_boxes:
            self._targets: list[Any] = [teacher.boxes(index, largest, "train") for index in indices]
        else:
            self._targets = [self._logits(picture) for picture in self._pictures]
        self._held_out = {px: teacher.pictures(teacher.held_out, px, "validation") for px in teacher.widths_px}

    def _logits(self, picture: Image) -> Tensor:
        px, stages = self._teacher.widths_px[0], self._teacher.stages
        return torch.from_numpy(self._teacher.finished(self._teacher.run(picture[None], px, 0, stages), stages)[0])

    def batch(self, rng: np.random.Generator) -> Any:
        return [self._group(px, rng) for px in self._teacher.widths_px]

    def _group(self, px: int, rng: np.random.Generator) -> Any:
        height, width = self._teacher.size(px)
        if self._teacher.has_boxes:
            width, height = (_cropped(side, most) for side, most in zip((width, height), CROP_PX, strict=True))
        count = int(np.clip(STEP_PIXELS // (width * height), *CROPS))
        crops = [self._crop(px, width, height, rng) for _ in range(count)]
        return pixels(np.stack([image for image, _ in crops])), [target for _, target in crops]

    def _crop(self, px: int, width: int, height: int, rng: np.random.Generator) -> tuple[Image, Any]:
        row = int(rng.integers(len(self._pictures)))
        picture, target = self._pictures[row], self._targets[row]
        if not self._teacher.has_boxes:
            return coloured(_shifted(picture, (width, height), rng), rng), target
        scale = px / self._teacher.widths_px[0] * rng.uniform(*ZOOM)
        image, boxes = view(picture, target, scale, width, height, rng)
        if rng.random() < 0.5:
            image, boxes = image[:, ::-1], _mirrored(boxes, width)
        return coloured(image, rng), boxes

    def loss(self, module: nn.Module, batch: Any) -> tuple[Tensor, Scalars]:
        assert isinstance(module, BranchyModel)
        losses = []
        for inputs, targets in batch:
            outputs = [output.float() for output in module.all_exits(inputs)]
            losses.append(output_loss(outputs, targets, self._answers))
        loss = torch.stack(losses).mean()
        return loss, {"loss": loss.item()}

    @torch.no_grad()
    def outputs(self, model: BranchyModel, px: int) -> list[list[Any]]:
        """Outputs of every exit on the validation frames."""
        found = [model.all_exits(pixels(picture[None])) for picture in self._held_out[px]]
        return [[output[0].float().numpy() for output in each] for each in zip(*found, strict=True)]

    def validate(self, module: nn.Module) -> float:
        assert isinstance(module, BranchyModel)
        return float(np.mean([self._quality(each, px) for px in self._held_out for each in self.outputs(module, px)]))

    def _quality(self, outputs: list[Any], px: int) -> float:
        if self._teacher.has_boxes:
            return operating_point(outputs, self.truths(px), self._teacher.size(px))[1]
        return self._teacher.score(np.stack(outputs), px, self._teacher.held_out)

    def truths(self, px: int) -> list[Floats]:
        """The boxes of the validation frames on their pictures."""
        return [self._teacher.boxes(index, px, "validation") for index in self._teacher.held_out]

    def finish(self, model: BranchyModel) -> dict[int, tuple[float, ...]]:
        """Choose the operating thresholds; returns the score of each exit at each resolution."""
        scores = {}
        for px in self._held_out:
            if self._teacher.has_boxes:
                for head, outputs in zip(model.exits, self.outputs(model, px), strict=True):
                    calibrated(head, outputs, self.truths(px), self._teacher.size(px))
            scores[px] = tuple(
                self._teacher.score(np.stack(outputs).astype(np.float32), px, self._teacher.held_out)
                for outputs in self.outputs(model, px)
            )
        return scores


def train_student(
    teacher: Teacher, family: StudentFamily, pace: Pace
) -> tuple[BranchyModel, dict[int, tuple[float, ...]], int]:
    """The trained student, the score of each exit at each resolution, and the steps that were done."""
    lesson = StudentLesson(teacher, family)
    torch.manual_seed(pace.seed)
    model, steps = fit(channels_last(student(family)), lesson, pace)
    return model, lesson.finish(model), steps


def coloured(image: Image, rng: np.random.Generator) -> Image:
    """The picture in other light, and sometimes after JPEG, so that students also work on decoded JPEG."""
    changed = recolour(image, rng)
    return through_jpeg(changed, int(rng.integers(*JPEG_QUALITY))) if rng.random() < JPEG_FRAC else changed


def _cropped(side: int, most: int) -> int:
    return max(_GRID, min(side, most) // _GRID * _GRID)


def _mirrored(boxes: Floats, width: int) -> Floats:
    mirrored = boxes.copy()
    mirrored[:, 0], mirrored[:, 2] = width - boxes[:, 2], width - boxes[:, 0]
    return mirrored


def _shifted(picture: Image, size: tuple[int, int], rng: np.random.Generator) -> Image:
    """The picture at a size (width, height), shifted a little."""
    small = cv2.resize(picture, size, interpolation=cv2.INTER_AREA)
    x, y = rng.uniform(-SHIFT, SHIFT, 2) * size
    moved = cv2.warpAffine(small, np.array([[1, 0, x], [0, 1, y]], np.float32), size, borderMode=cv2.BORDER_REPLICATE)
    return np.asarray(moved, np.uint8)
