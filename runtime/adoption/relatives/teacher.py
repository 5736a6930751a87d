"""What relatives are made from: the whole model, its workload, and its answers on training and validation frames."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from runtime.models.packing import Shapes
from runtime.models.stages import BranchyModel
from runtime.workloads.adopted.families import Answers, CutShapes
from runtime.workloads.boxes import Floats
from runtime.workloads.types import Image, Images, Split

if TYPE_CHECKING:
    from runtime.workloads.adopted.workload import Adopted

CLASS = 5  # column of a box


class Teacher:
    """Owns nothing but what it remembers of the whole model: shapes at its cuts, and its scores.

    Boxes are float32 (n, 5): left, top, right, bottom in pixels of the picture at a resolution, and the class.
    """

    def __init__(self, work: Adopted, whole: BranchyModel, validation: int) -> None:
        """``validation``: the most frames of that split that scores are measured on."""
        self.work, self.whole = work, whole.eval()
        self.widths_px = tuple(work.resolutions_px)
        self.stages = len(whole.stages)
        self.held_out = evenly(work.sample_count("validation"), validation)
        self.has_boxes = work.adoption.task in ("detect", "text")

    @property
    def can_classify(self) -> bool:
        return self.work.adoption.task == "classify"

    @cached_property
    def answers(self) -> Answers | None:
        """What relatives with outputs of their own give; None where nobody can know what the outputs mean."""
        picture = self.picture(0, self.widths_px[0], "train")
        output = self.run(picture[None], self.widths_px[0], 0, self.stages)
        last = self.whole.exits[-1](output)
        if self.has_boxes:
            several = last.shape[2] > CLASS
            known = [len(self.work.adoption.classes), *(int(box[CLASS]) + 1 for box in self._boxes() if several)]
            return Answers(max(known) if several else 1, self.widths_px)
        return Answers(last.shape[1]) if self.can_classify else None

    def _boxes(self) -> Iterable[Sequence[float]]:
        for index in range(self.work.sample_count("train")):
            yield from self.truth(index, "train")

    # Frames ------------------------------------------------------------------------------------------------------

    def picture(self, index: int, px: int, split: Split) -> Image:
        """The u8 picture of a frame, as models take it."""
        return self.work.resize(self.work.sample(index, split)[0], px)

    def pictures(self, indices: Iterable[int], px: int, split: Split) -> Images:
        """(n, h, w[, 3]) of frames in ascending order, which is fastest to decode."""
        return np.stack([self.picture(index, px, split) for index in indices])

    def truth(self, index: int, split: Split) -> Any:
        """The boxes of a frame in its own pixels, or what else the truth is, without decoding the frame."""
        found: Any = self.work.truths[self.work.source_index(index, split)]
        return found

    def boxes(self, index: int, px: int, split: Split) -> Floats:
        """The boxes of a frame on its picture at a resolution: the parts inside it, as labels may reach beyond."""
        shape = tuple(self.work.adoption.frame_shape)
        top, left, height, width = self.work.adoption.geometry.inner(shape, px)
        rows = [[*box[:4], box[CLASS] if len(box) > CLASS else 0.0] for box in self.truth(index, split)]
        boxes = np.array(rows, np.float32).reshape(-1, CLASS)
        boxes[:, 2:4] += boxes[:, :2]
        boxes[:, :4] *= np.array([width / shape[1], height / shape[0]] * 2, np.float32)
        boxes[:, :4] += np.array([left, top] * 2, np.float32)
        edges = np.array(self.size(px)[::-1] * 2, np.float32)
        boxes[:, :4] = np.clip(boxes[:, :4], 0.0, edges)
        found: Floats = boxes[(boxes[:, 2] > boxes[:, 0]) & (boxes[:, 3] > boxes[:, 1])]
        return found

    def size(self, px: int) -> tuple[int, int]:
        """Height and width of the picture at a resolution."""
        return self.work.adoption.geometry.sizes[px]

    # The whole model ---------------------------------------------------------------------------------------------

    @torch.no_grad()
    def run(self, pictures: Images, px: int, start: int, stop: int) -> Tensor:
        """What is at the cut after ``stop`` stages, for pictures (n, h, w[, 3]); ``start`` is 0."""
        return self.whole.run_stages(self.work.to_input(pictures), start, stop)

    @cached_property
    def cut_shapes(self) -> dict[int, tuple[CutShapes, ...]]:
        """The tensors at each cut from 1 on, for each resolution."""
        found: dict[int, list[CutShapes]] = {cut: [] for cut in range(1, self.stages + 1)}
        for px in self.widths_px:
            x = self.work.to_input(self.picture(0, px, "train")[None])
            for cut in found:
                with torch.no_grad():
                    x = self.whole.run_stages(x, cut - 1, cut)
                found[cut].append(CutShapes(self.size(px), self.shapes_at(cut, x)))
        return {cut: tuple(places) for cut, places in found.items()}

    def shapes_at(self, cut: int, x: Tensor) -> Shapes:
        """Shapes of the tensors of what is at a cut, (batch, ...)."""
        packed = tuple(x.shape[1:])
        return self.whole.parts_at(cut, packed) or (packed,)

    @cached_property
    def macs_before(self) -> tuple[float, ...]:
        """Share of the multiply-accumulates of the whole model that each cut from 0 on has before it."""
        x = self.work.to_input(self.picture(0, self.widths_px[0], "train")[None])
        macs = [0]
        for index, stage in enumerate(self.whole.stages):
            macs.append(macs[-1] + stage.macs_of(tuple(x.shape[1:])))  # type: ignore[operator]
            with torch.no_grad():
                x = self.whole.run_stages(x, index, index + 1)
        return tuple(count / max(macs[-1], 1) for count in macs)

    # Scores ------------------------------------------------------------------------------------------------------

    def score(self, outputs: NDArray[np.float32], px: int, indices: Sequence[int]) -> float:
        """Mean score of outputs (n, ...) for these validation frames."""
        answers = self.work.answers(outputs, px)
        scores = [
            self.work.score(answer, self.truth(index, "validation"))
            for answer, index in zip(answers, indices, strict=True)
        ]
        return float(np.mean(scores))

    @cached_property
    def whole_scores(self) -> dict[int, float]:
        """Mean score of the whole model at each resolution."""
        return {px: self.score_of_pictures(self._held_out(px), px, self.held_out) for px in self.widths_px}

    def score_of_pictures(self, pictures: Iterable[Image], px: int, indices: Sequence[int]) -> float:
        """Mean score of the whole model on these pictures of validation frames."""
        outputs = [self.finished(self.run(picture[None], px, 0, self.stages), self.stages) for picture in pictures]
        return self.score(np.concatenate(outputs), px, indices)

    def _held_out(self, px: int) -> Iterable[Image]:
        return (self.picture(index, px, "validation") for index in self.held_out)

    @torch.no_grad()
    def finished(self, z: Tensor, cut: int) -> NDArray[np.float32]:
        """Outputs of the last exit for what is at a cut."""
        last = self.whole.exits[-1](self.whole.run_stages(z, cut, self.stages))
        return np.asarray(last.float().numpy(), np.float32)


def evenly(count: int, most: int) -> list[int]:
    """At most so many of the first ``count`` numbers, evenly spread, ascending."""
    if count <= most:
        return list(range(count))
    return [round(place) for place in np.linspace(0, count - 1, most).tolist()]
