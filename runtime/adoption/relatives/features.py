"""What a foreign model has at its cuts, for a sample of the frames: computed once, kept in half precision."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from runtime.adoption.relatives.teacher import Teacher, evenly
from runtime.workloads.types import Images, Split

FEATURE_BYTES = 512 << 20  # of all features of training frames; those of validation frames are fewer or as many
LEAST_FRAMES = 16
MOST_FRAMES = 400
MOST_LAG = 3  # frames between a picture and the later one that is kept beside it


class Features:
    """Owns, for frames of a split at one resolution, their pictures and what is at some cuts."""

    def __init__(self, indices: Sequence[int], pictures: Images, following: Images) -> None:
        self.indices = tuple(indices)
        self.pictures = pictures  # u8 (n, h, w[, 3])
        self.following = following  # the same of frames a little later
        self._at: dict[int, NDArray[np.float16]] = {}

    def keep(self, row: int, cut: int, x: Tensor) -> None:
        """Keep what is at a cut, (1, ...), for one of the frames."""
        if cut not in self._at:
            self._at[cut] = np.empty((len(self.indices), *x.shape[1:]), np.float16)
        np.clip(x[0].numpy(), -65_000, 65_000, out=self._at[cut][row], casting="unsafe")

    def at(self, cut: int, rows: Sequence[int] | NDArray[np.int64]) -> Tensor:
        """(rows, ...) float32 at a cut."""
        return torch.from_numpy(self._at[cut][rows].astype(np.float32))


def frames_that_fit(teacher: Teacher, cuts: Iterable[int], seconds: float) -> int:
    """How many frames, each at all resolutions, can be run to the last of these cuts in a time and kept."""
    cuts = sorted(cuts)
    taken_s, values = 0.0, 0
    for px in teacher.widths_px:
        picture = teacher.picture(0, px, "train")
        teacher.run(picture[None], px, 0, cuts[-1])  # opens what runs the pieces
        start_s = time.monotonic()
        teacher.run(picture[None], px, 0, cuts[-1])
        taken_s += time.monotonic() - start_s
        place = teacher.widths_px.index(px)
        shapes = [shape for cut in cuts for shape in teacher.cut_shapes[cut][place].tensors]
        values += sum(int(np.prod(shape)) for shape in shapes) + picture.size  # two pictures of a byte
    fitting = min(seconds / max(taken_s, 1e-6), FEATURE_BYTES / (2 * values))
    return int(np.clip(fitting, LEAST_FRAMES, MOST_FRAMES))


def collect(
    teacher: Teacher, cuts: Iterable[int], split: Split, frames: int, advance: Callable[[float], None]
) -> Mapping[int, Features]:
    """The features of evenly spread frames, by resolution."""
    count = teacher.work.sample_count(split)
    indices = teacher.held_out if split == "validation" else evenly(count, frames)
    lags = np.random.default_rng(0).integers(1, MOST_LAG + 1, len(indices))
    later = [
        index + lag if index + lag < count else max(index - lag, 0)
        for index, lag in zip(indices, lags.tolist(), strict=True)
    ]
    found = {}
    for place, px in enumerate(teacher.widths_px):
        pictures, following = teacher.pictures(indices, px, split), teacher.pictures(later, px, split)
        found[px] = Features(indices, pictures, following)
        for row in range(len(indices)):
            _run(teacher, found[px], row, sorted(cuts))
            advance((place + (row + 1) / len(indices)) / len(teacher.widths_px))
    return found


@torch.no_grad()
def _run(teacher: Teacher, features: Features, row: int, cuts: Sequence[int]) -> None:
    x, done = teacher.work.to_input(features.pictures[row : row + 1]), 0
    for cut in cuts:
        x, done = teacher.whole.run_stages(x, done, cut), cut
        features.keep(row, cut, x)
