"""The training task of campus detectors: augmented crops, a heat map loss and a box loss for every exit, F1.

The 424 training frames show only a few dozen people. They are cut out by their difference to the median frame and
pasted elsewhere at the same row of the picture (where the perspective is the same), with changed colours or mirrored.
Pasted pairs also provide overlapping people, whom the labels merge into one box. Every step has crops of all four
resolutions. Targets are those of CenterNet (Zhou et al., 2019): a Gaussian around each centre, and the distances to the
sides of the box near it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from runtime.models.arithmetic import training_arithmetic
from runtime.models.box_targets import TargetMaps, exit_loss
from runtime.models.detector_parts import NO_PEAK, Peaks
from runtime.models.training import Group, Scalars
from runtime.workloads.augmentation import recolour, through_jpeg, view
from runtime.workloads.boxes import Floats
from runtime.workloads.campus.augmentation import cut_out, paste
from runtime.workloads.campus.boxes import best_threshold, hits, kept_candidates
from runtime.workloads.inputs import model_input
from runtime.workloads.types import Image

if TYPE_CHECKING:
    from runtime.models.stages import BranchyModel
    from runtime.workloads.base import Workload

STEPS_PER_EPOCH = 100
CROPS = {768: (384, 288, 6), 512: (384, 288, 4), 384: (384, 288, 4), 256: (256, 192, 6)}  # width, height, count
ZOOM = (0.85, 1.3)  # range of scales, relative to the frame at that resolution
JPEG_FRAC = 0.15  # share of crops with JPEG compression, so that the detectors also work on decoded JPEG
JPEG_QUALITY = (5, 60)
PASTED = (0, 0, 1, 2, 3)  # people pasted per crop, drawn with equal probability
BACKGROUND_STEP = 8  # every eighth frame enters the median
GROUP_ASPECT = 0.6  # a box wider than this share of its height holds several people; no heat is learned inside
EXIT_WEIGHTS = 0.6  # of every exit but the last, whose weight is 1
EVALUATED_EVERY = 4  # after an epoch, every fourth validation frame is evaluated


class CampusTask:
    """Owns the frames and labels of training and validation, and the people cut out of them."""

    def __init__(self, workload: Workload, seed: int) -> None:
        cv2.setNumThreads(1)
        self._workload = workload
        self._seed = seed
        train = [workload.sample(index, "train") for index in range(workload.sample_count("train"))]
        self.frames = [frame for frame, _ in train]
        self._boxes = [_as_array(truth) for _, truth in train]
        held_out = [workload.sample(index, "validation") for index in range(workload.sample_count("validation"))]
        self._held_out = np.stack([frame for frame, _ in held_out])
        self._held_out_boxes = [_as_array(truth) for _, truth in held_out]
        background = np.median(np.stack(self.frames[::BACKGROUND_STEP]), axis=0).astype(np.uint8)
        self.people = [
            person
            for frame, boxes in zip(self.frames, self._boxes, strict=True)
            for person in cut_out(frame, boxes, background)
        ]
        self.steps_per_epoch = STEPS_PER_EPOCH
        self.crops = CROPS

    def steps(self, epoch: int) -> Iterator[Sequence[Group]]:
        rng = np.random.default_rng((self._seed, epoch))
        for _ in range(self.steps_per_epoch):
            yield [self.group(px, rng) for px in self.crops]

    def group(self, px: int, rng: np.random.Generator) -> Group:
        """The crops of one resolution in one step."""
        crops = [self._crop(px, rng) for _ in range(self.crops[px][2])]
        inputs = self._workload.to_input(np.stack([image for image, _ in crops]))
        return Group(inputs, [boxes for _, boxes in crops], 1.0 / len(self.crops))

    def _crop(self, px: int, rng: np.random.Generator) -> tuple[Image, Floats]:
        row = self.draw_row(rng)
        return self.augmented(self.frames[row], row, px, rng)

    def draw_row(self, rng: np.random.Generator) -> int:
        """The number of a training frame, drawn at random."""
        return int(rng.integers(len(self.frames)))

    def augmented(self, frame: Image, row: int, px: int, rng: np.random.Generator) -> tuple[Image, Floats]:
        """An augmented crop (height, width, 3) and its boxes (n, 4): left, top, right, bottom in its pixels.

        The boxes are those of training frame number ``row``. What is drawn does not depend on the pixels, so an equal
        state of ``rng`` changes another frame in the same way.
        """
        width, height, _ = self.crops[px]
        frame, boxes, scale = frame.copy(), self._boxes[row], px / 768
        for _ in range(rng.choice(PASTED)):
            boxes = paste(frame, boxes, self.people[int(rng.integers(len(self.people)))], rng)
        scale *= rng.uniform(*ZOOM)
        image, boxes = view(frame, boxes, scale, width, height, rng)
        if rng.random() < 0.5:
            image = image[:, ::-1]
            boxes = np.stack((width - boxes[:, 2], boxes[:, 1], width - boxes[:, 0], boxes[:, 3]), 1)
        image = recolour(image, rng)
        if rng.random() < JPEG_FRAC:
            image = through_jpeg(image, int(rng.integers(*JPEG_QUALITY)))
        return image, boxes

    def loss(self, outputs: list[Tensor], targets: Sequence[Floats]) -> tuple[Tensor, Scalars]:
        maps = TargetMaps.of(targets, outputs[-1].shape[-1], outputs[-1].shape[-2], group_aspect=GROUP_ASPECT)
        losses = [exit_loss(output, maps) for output in outputs]
        total = losses[-1][0] + losses[-1][1]
        for heat, box in losses[:-1]:
            total = total + EXIT_WEIGHTS * (heat + box)
        scalars = {"loss/heat": losses[-1][0].item(), "loss/box": losses[-1][1].item(), "loss/all_exits": total.item()}
        return total, scalars

    def evaluate(self, model: BranchyModel) -> Scalars:
        """Best validation F1 over all thresholds, per resolution and exit, on every fourth frame."""
        scalars: Scalars = {}
        for px in self._workload.resolutions_px:
            for exit_branch, (_, f1) in enumerate(self._operating_points(model, px, EVALUATED_EVERY)):
                scalars[f"f1/{px}px/exit{exit_branch}"] = f1
        return scalars

    def finish(self, model: BranchyModel) -> None:
        """Choose the operating threshold of each exit and resolution on validation frames; store it in the model."""
        for px in self._workload.resolutions_px:
            for exit_head, (threshold, _) in zip(model.exits, self._operating_points(model, px, 1), strict=True):
                peaks = next(module for module in exit_head.modules() if isinstance(module, Peaks))
                peaks.calibrate(px, threshold)

    @torch.no_grad()
    def _operating_points(self, model: BranchyModel, px: int, every: int) -> list[tuple[float, float]]:
        """Threshold and F1 of each exit, on every ``every``-th validation frame."""
        truths = self._held_out_boxes[::every]
        logits: list[list[Floats]] = [[] for _ in model.exits]
        found: list[list[NDArray[np.bool_]]] = [[] for _ in model.exits]
        for frame, truth in zip(self._held_out[::every], truths, strict=True):
            inputs = model_input(self._workload, model, self._workload.resize(frame, px)[None])
            with training_arithmetic():
                outputs = model.all_exits(inputs)
            height, width = frame.shape[:2]
            for exit_branch, output in enumerate(outputs):
                boxes = kept_candidates(output[0].float().numpy(), width, height, NO_PEAK / 4)
                logits[exit_branch].append(boxes[:, 4])
                found[exit_branch].append(hits(boxes[:, :4], truth, 0.4))
        people = sum(len(truth) for truth in truths)
        return [best_threshold(*pair, people) for pair in zip(logits, found, strict=True)]


def _as_array(truth: Sequence[Sequence[float]]) -> Floats:
    """Convert [[x, y, w, h, score], ...] to (n, 4): left, top, right, bottom."""
    boxes = np.array([box[:4] for box in truth], np.float32).reshape(-1, 4)
    boxes[:, 2:] += boxes[:, :2]
    return boxes
