"""A decoder for models with an output layout of their own: for each level scores, and distances to the four sides."""

from collections.abc import Sequence

import numpy as np

from runtime.decoders.base import Decoder, Floats, Size
from runtime.decoders.boxes import as_fractions, best_class, candidates
from runtime.models.packing import Shapes


class Fcos(Decoder):
    """Scores (classes, h, w) from 0 to 1, then distances (4, h, w) in pixels of the input; the same for more levels."""

    name = "fcos"
    expected = "scores (classes, h, w) and distances (4, h, w) for each level"

    def fits(self, shapes: Shapes) -> bool:
        pairs = list(zip(shapes[::2], shapes[1::2], strict=False))
        three = all(len(shape) == 3 for shape in shapes)
        return three and 2 * len(pairs) == len(shapes) and all(d == (4, *s[1:]) for s, d in pairs)

    def classes(self, shapes: Shapes) -> int:
        return shapes[0][0]

    def decode(self, outputs: Sequence[Floats], size: Size) -> Floats:
        levels = zip(outputs[::2], outputs[1::2], strict=True)
        return np.concatenate([self._level(scores, distances, size) for scores, distances in levels])

    def _level(self, scores: Floats, distances: Floats, size: Size) -> Floats:
        classes, rows, columns = scores.shape
        y, x = (np.indices((rows, columns)) + 0.5) * np.reshape((size[0] / rows, size[1] / columns), (2, 1, 1))
        left, top, right, bottom = distances
        corners = np.stack((x - left, y - top, x + right, y + bottom), axis=-1).reshape(-1, 4)
        return candidates(as_fractions(corners, size), *best_class(scores.reshape(classes, -1).T))
