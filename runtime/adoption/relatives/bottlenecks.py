"""Train a small code in place of some stages of a foreign model: from pixels to what is at one of its cuts.

First the decoder learns what is at the cut. Then, where PyTorch can run the stages behind it, encoder and decoder learn
through them what the whole model gives, which is what counts.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from controller.errors import UsageError
from runtime.adoption.relatives.features import Features
from runtime.adoption.relatives.fitting import Pace, fit
from runtime.adoption.relatives.teacher import Teacher, evenly
from runtime.models.bottleneck import Decoder
from runtime.models.foreign_stage import ForeignStage
from runtime.models.packed_tensors import packed, unpacked
from runtime.models.pixel_encoder import PixelEncoder
from runtime.models.signs import DENSITY_WEIGHT, change_and_density
from runtime.models.stages import BranchyModel
from runtime.models.training import Scalars
from runtime.workloads.adopted.families import BottleneckFamily, build
from runtime.workloads.adopted.networks import decoder_of, encoder_of
from runtime.workloads.inputs import pixels

LATEST = 0.75  # most of the multiply-accumulates that a decoder stands for
EARLIEST = 0.02  # least: before that, features are hardly less than the picture
BATCH = 4  # frames of a step, of one resolution
TAIL_BATCH = 2  # the same while learning through the stages behind the cut
TAIL_FRAC = 0.5  # of the time
TAIL_RATE = 0.3  # peak rate of that part, relative to the first
FEATURE_WEIGHT = 0.3  # of the features' loss in that part
OBJECT_WEIGHT = 4.0  # features under an object count so much more than others
CLIPPED = 6.0  # differences of more standard deviations count linearly
LEAST_DEVIATION = 1e-3  # relative to the largest channel's
STATISTICS_FRAMES = 64  # that tell mean and deviation of every channel
TEMPO = 0.05  # weight of changes between frames at signs, which cost bytes


def best_cut(teacher: Teacher) -> int | None:
    """The cut whose tensors are the fewest values: a decoder has the least to find. None where none is of maps."""
    macs = teacher.macs_before
    values = {
        cut: sum(int(np.prod(shape)) for shape in places[0].tensors)
        for cut, places in teacher.cut_shapes.items()
        if cut < teacher.stages
        and EARLIEST <= macs[cut] <= LATEST
        and all(len(shape) == 3 and min(shape[1:]) > 1 for place in places for shape in place.tensors)
    }
    return min(values, key=lambda cut: values[cut], default=None)


class Halves(nn.Module):
    """Encoder and decoder."""

    def __init__(self, family: BottleneckFamily) -> None:
        super().__init__()
        self.encoder, self.decoder = encoder_of(family), decoder_of(family)

    def maps(self, x: Tensor) -> list[Tensor]:
        """The tensors at the cut, normalised, of pixels."""
        found: list[Tensor] = self.decoder.maps(self.encoder(x))
        return found


class FeatureLesson:
    """What is at the cut. Owns mean and deviation of every channel there."""

    def __init__(
        self,
        teacher: Teacher,
        family: BottleneckFamily,
        train: Mapping[int, Features],
        held_out: Mapping[int, Features],
        batch: int = BATCH,
    ) -> None:
        self.teacher, self.family, self.train, self.held_out = teacher, family, train, held_out
        self._batch = batch
        self.shapes = {px: cut.tensors for px, cut in zip(teacher.widths_px, family.at, strict=True)}
        sample = train[teacher.widths_px[0]]
        rows = evenly(len(sample.indices), STATISTICS_FRAMES)
        parts = unpacked(sample.at(family.joins, rows), self.shapes[teacher.widths_px[0]])
        self.means = [part.mean((0, 2, 3)) for part in parts]
        deviations = [part.std((0, 2, 3)) for part in parts]
        self.deviations = [each.clamp(min=max(LEAST_DEVIATION * float(each.max()), 1e-6)) for each in deviations]

    def batch(self, rng: np.random.Generator) -> Any:
        px = int(rng.choice(list(self.train)))
        count = len(self.train[px].indices)
        return px, rng.choice(count, min(self._batch, count), replace=False)

    def loss(self, module: nn.Module, batch: Any) -> tuple[Tensor, Scalars]:
        px, rows = batch
        assert isinstance(module, Halves)
        features = self.train[px]
        x = self.inputs(features, rows)
        loss = self.feature_loss(module.maps(x), features, px, rows, "train")
        scalars = {f"loss/features/{px}px": loss.item()}
        if isinstance(module.encoder, PixelEncoder):
            own, changes = self._tempo(module.encoder, x, pixels(features.following[rows]))
            return loss + own, scalars | {"loss/change": changes}
        return loss, scalars

    def inputs(self, features: Features, rows: Any) -> Tensor:
        """What the encoder takes: pixels, or what is at the cut that it reads."""
        return features.at(self.family.reads, rows) if self.family.reads else pixels(features.pictures[rows])

    def _tempo(self, encoder: PixelEncoder, x: Tensor, following: Tensor) -> tuple[Tensor, float]:
        change, density = change_and_density(encoder.values(x), encoder.values(following))
        return TEMPO * (change + DENSITY_WEIGHT * density) / self.family.channels, change.item()

    def feature_loss(self, maps: Sequence[Tensor], features: Features, px: int, rows: Any, which: Any) -> Tensor:
        """Mean difference of normalised features, more where objects are."""
        targets = unpacked(features.at(self.family.joins, rows), self.shapes[px])
        losses = []
        for index, (found, target) in enumerate(zip(maps, targets, strict=True)):
            wanted = (target - self.means[index][:, None, None]) / self.deviations[index][:, None, None]
            weight = self._weights(features, px, rows, which, wanted.shape[-2:])
            difference = nn.functional.huber_loss(found.float(), wanted, reduction="none", delta=CLIPPED)
            losses.append((difference * weight).sum() / (weight.sum() * wanted.shape[1]))
        return torch.stack(losses).mean()

    def _weights(self, features: Features, px: int, rows: Any, which: Any, size: Sequence[int]) -> Tensor:
        """(n, 1, h, w): 1, and more under objects."""
        weights = torch.ones(len(rows), 1, *size)
        if not self.teacher.has_boxes:
            return weights
        height, width = self.teacher.size(px)
        factors = np.array([size[1] / width, size[0] / height] * 2)
        for place, row in enumerate(rows):
            for box in self.teacher.boxes(features.indices[row], px, which)[:, :4] * factors:
                left, top = np.floor(box[:2]).astype(int).clip(0)
                right, bottom = np.ceil(box[2:]).astype(int)
                weights[place, 0, top : bottom + 1, left : right + 1] = 1.0 + OBJECT_WEIGHT
        return weights

    @torch.no_grad()
    def validate(self, module: nn.Module) -> float:
        assert isinstance(module, Halves)
        losses = []
        for px, features in self.held_out.items():
            for row in range(len(features.indices)):
                maps = module.maps(self.inputs(features, [row]))
                losses.append(self.feature_loss(maps, features, px, [row], "validation").item())
        return -float(np.mean(losses))


class TailLesson:
    """What the whole model gives, learned through its stages behind the cut.

    UsageError where PyTorch cannot run them.
    """

    def __init__(self, features: FeatureLesson) -> None:
        self._features, family = features, features.family
        self._teacher = features.teacher
        stages = [copy.deepcopy(stage) for stage in self._teacher.whole.stages[family.joins :]]
        for stage in stages:
            assert isinstance(stage, ForeignStage)
            stage.use("torch")
        self._tail = stages
        px, rows = features.batch(np.random.default_rng(0))
        self.expected(px, rows[:1])  # an operator that is not known shows here

    def batch(self, rng: np.random.Generator) -> Any:
        """Of a resolution drawn so that all take as long: many small pictures teach more than a few large ones."""
        widths = list(self._features.train)
        shares = 1.0 / np.array([np.prod(self._teacher.size(px)) for px in widths], float)
        px = int(rng.choice(widths, p=shares / shares.sum()))
        count = len(self._features.train[px].indices)
        return px, rng.choice(count, min(TAIL_BATCH, count), replace=False)

    def loss(self, module: nn.Module, batch: Any) -> tuple[Tensor, Scalars]:
        px, rows = batch
        assert isinstance(module, Halves)
        features = self._features.train[px]
        maps = module.maps(self._features.inputs(features, rows))
        near = self._features.feature_loss(maps, features, px, rows, "train")
        loss = self._difference(maps, features, px, rows)
        scalars = {f"loss/outputs/{px}px": loss.item(), f"loss/features/{px}px": near.item()}
        return loss + FEATURE_WEIGHT * near, scalars

    def _difference(self, maps: Sequence[Tensor], features: Features, px: int, rows: Any) -> Tensor:
        """Mean square difference of the whole model's outputs, relative to their variance."""
        x = packed(
            [
                part.float() * deviation[:, None, None] + mean[:, None, None]
                for part, mean, deviation in zip(maps, self._features.means, self._features.deviations, strict=True)
            ]
        )
        found, wanted = self._run(x), features.at(self._teacher.stages, rows)
        shapes = self._teacher.cut_shapes[self._teacher.stages][self._teacher.widths_px.index(px)].tensors
        parts = zip(unpacked(found, shapes), unpacked(wanted, shapes), strict=True)
        return torch.stack([relative_difference(one, other) for one, other in parts]).mean()

    def expected(self, px: int, rows: Any) -> Tensor:
        """Outputs of the stages behind the cut for what is really there."""
        with torch.no_grad():
            return self._run(self._features.train[px].at(self._features.family.joins, rows))

    def _run(self, x: Tensor) -> Tensor:
        """Gradients compute each stage once more, so that only one stage's activations are in memory: a detector's tail
        at 640 px has a gigabyte of them."""
        with torch.autocast("cpu", enabled=False):
            for stage in self._tail:
                x = checkpoint(stage, x, use_reentrant=False) if x.requires_grad else stage(x)
        return x

    @torch.no_grad()
    def validate(self, module: nn.Module) -> float:
        assert isinstance(module, Halves)
        losses = []
        for px, features in self._features.held_out.items():
            for row in range(0, len(features.indices), 4):  # the stages behind the cut take long
                maps = module.maps(self._features.inputs(features, [row]))
                losses.append(self._difference(maps, features, px, [row]).item())
        return -float(np.mean(losses))


def relative_difference(found: Tensor, wanted: Tensor) -> Tensor:
    """Mean square difference of outputs (n, ...), relative to the variance of each of their channels.

    The smaller dimension of two is that of the channels: boxes are many, their values few.
    """
    if wanted.ndim == 3:
        rows = wanted.shape[1] <= wanted.shape[2]
        found, wanted = (found, wanted) if rows else (found.mT, wanted.mT)
    axes = tuple(axis for axis in range(wanted.ndim) if axis != 1) if wanted.ndim > 2 else (0, 1)
    variance = wanted.var(axes, keepdim=True).clamp(min=1e-4)
    return ((found - wanted) ** 2 / variance).mean()


def train_bottleneck(
    teacher: Teacher,
    family: BottleneckFamily,
    train: Mapping[int, Features],
    held_out: Mapping[int, Features],
    pace: Pace,
) -> tuple[BranchyModel, str]:
    """The trained model, with the stages of the whole behind it; words on how it was trained."""
    torch.manual_seed(pace.seed)
    halves = Halves(family)
    features = FeatureLesson(teacher, family, train, held_out)
    tail, why_not = _tail(features)
    first_s = pace.seconds * (1.0 - TAIL_FRAC) if tail else pace.seconds
    halves, steps = fit(halves, features, replace(pace, seconds=first_s))
    words = f"{steps} steps towards the features"
    if tail:
        later = replace(pace, seconds=pace.seconds - first_s, peak_rate=TAIL_RATE * pace.peak_rate, frozen_from=0.0)
        halves, steps = fit(halves.requires_grad_(True), tail, later)
        words += f", {steps} through the stages behind them"
    else:
        words += f", none through the stages behind them: {why_not}"
    halves.decoder.scale_outputs(features.means, features.deviations)
    return assembled(teacher, family, halves.encoder, halves.decoder), words


def _tail(features: FeatureLesson) -> tuple[TailLesson | None, str]:
    try:
        return TailLesson(features), ""
    except UsageError as error:
        return None, str(error)


def assembled(teacher: Teacher, family: BottleneckFamily, encoder: nn.Module, decoder: Decoder) -> BranchyModel:
    """The model of a family with these halves and the stages of the whole."""
    model = build(family, lambda: teacher.whole.exits[-1])
    own = [*teacher.whole.stages[: family.reads], encoder, decoder, *teacher.whole.stages[family.joins :]]
    for index, stage in enumerate(own):
        model.stages[index] = stage
    return model.eval()
