"""A camera that sees garments again and again: each time a little shifted, in another light, with noise of its own.

``mecpilot device --workload runtime.workloads.garments.shelf:Shelf`` runs it with the models of garments. Of its
frames, ``repetition`` show an item that was shown before. Which one follows Zipf's law: the k-th item that was ever
shown comes with a probability proportional to 1 / k. Everything follows from the seed.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from controller.records import Ints
from runtime.workloads.garments.workload import Garments
from runtime.workloads.types import Image, Split

FRAMES = 4_000
#: Strength of the changes from one time to the next. The models of garments, asked twice about the same item, give the
#: same answer in 96 to 97 of 100 cases; with shifts of two pixels or twice the noise no answer, cached or fresh, could
#: be trusted to 95 %.
SHIFT_PX = 1  # at most, in both directions
GAIN = 0.8, 1.2
NOISE = 3.0  # standard deviation, in grey values


class Shelf(Garments):
    """Owns the order in which items are shown, made once per split."""

    name = "garments-shelf"
    bundle = "garments"

    def __init__(self, data_dir: Path | None = None, repetition: float = 0.8, seed: int = 0) -> None:
        super().__init__(data_dir)
        self._repetition, self._seed = repetition, seed
        self._items: dict[Split, Ints] = {}

    def sample_count(self, split: Split) -> int:
        return FRAMES

    def source_index(self, index: int, split: Split = "test") -> int:
        return index % FRAMES

    def recorded_samples(self, split: Split) -> Ints:
        return self.items(split)

    def items(self, split: Split) -> Ints:
        """(frames,) which image of the split each frame shows."""
        if split not in self._items:
            rng = np.random.default_rng([self._seed, 0])
            images = rng.permutation(super().sample_count(split))
            self._items[split] = images[_shown(FRAMES, self._repetition, rng)]
        return self._items[split]

    def sample(self, index: int, split: Split = "test") -> tuple[Image, int]:
        index %= FRAMES
        image, label = super().sample(int(self.items(split)[index]), split)
        return changed(image, np.random.default_rng([self._seed, 1, index])), label


def changed(image: Image, rng: np.random.Generator) -> Image:
    """The image (28, 28) at another time."""
    padded = np.pad(image, SHIFT_PX)
    top, left = rng.integers(0, 2 * SHIFT_PX + 1, 2)
    moved = padded[top : top + image.shape[0], left : left + image.shape[1]]
    seen = moved * rng.uniform(*GAIN) + rng.normal(0.0, NOISE, image.shape)
    return np.clip(np.rint(seen), 0, 255).astype(np.uint8)


def _shown(frames: int, repetition: float, rng: np.random.Generator) -> Ints:
    """(frames,) number of the item in each frame; items are numbered in the order of their first frames."""
    mass = (1.0 / np.arange(1, frames + 1)).cumsum()
    shown = np.zeros(frames, np.int64)
    count = 0
    for frame, (repeats, place) in enumerate(zip(rng.random(frames) < repetition, rng.random(frames), strict=True)):
        if repeats and count:
            shown[frame] = np.searchsorted(mass[:count], place * mass[count - 1])
        else:
            shown[frame] = count
            count += 1
    return shown
