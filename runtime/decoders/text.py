"""The decoder of text detectors with a probability map: differentiable binarisation (DB; Liao et al., AAAI 2020).

Where the map is above ``pixel_threshold``, its connected regions are shrunken texts. Each is grown again by
area * unclip / perimeter (equation 10 there), and its score is the mean of the map in it. Boxes are axis-aligned.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np

from runtime.decoders.base import Decoder, Floats, Size, register_decoder
from runtime.decoders.boxes import as_fractions, candidates, sigmoid
from runtime.models.packing import Shapes

MOST_REGIONS = 1_000
SHORTEST_SIDE_PX = 3  # of a region in the map, as in PaddleOCR


@register_decoder
class Db(Decoder):
    """One map (h, w) of probabilities; ``logits``: the map is not through a sigmoid yet."""

    name = "db"
    needs_size = False
    expected = "one output, a map (1, h, w) or (h, w) of probabilities"

    def __init__(self, pixel_threshold: float = 0.3, unclip: float = 1.5, logits: bool = False) -> None:
        if not 0.0 < pixel_threshold < 1.0 or unclip < 0.0:
            raise ValueError(f"pixel_threshold {pixel_threshold}, unclip {unclip}; expected 0 to 1, and 0 or more")
        self._least, self._unclip, self._logits = pixel_threshold, unclip, bool(logits)

    def fits(self, shapes: Shapes) -> bool:
        return len(shapes) == 1 and len(shapes[0]) >= 2 and shapes[0][:-2] in ((), (1,)) and min(shapes[0][-2:]) >= 8

    def classes(self, shapes: Shapes) -> int:
        return 1

    def decode(self, outputs: Sequence[Floats], size: Size) -> Floats:
        field = np.ascontiguousarray(outputs[0].reshape(outputs[0].shape[-2:]), np.float32)
        if self._logits:
            field = sigmoid(field).astype(np.float32)
        regions, _ = cv2.findContours((field > self._least).astype(np.uint8), cv2.RETR_LIST, cv2.CHAIN_APPROX_SIMPLE)
        found = [box for region in regions[:MOST_REGIONS] if (box := self._box(field, region)) is not None]
        rows = np.array(found, np.float32).reshape(-1, 5)
        return candidates(as_fractions(rows[:, :4], (field.shape[0], field.shape[1])), rows[:, 4])

    def _box(self, field: Floats, region: Any) -> tuple[float, ...] | None:
        """Left, top, right, bottom in cells of the map, and score; None for a region that is too small."""
        sides = cv2.minAreaRect(region)[1]
        if min(sides) < SHORTEST_SIDE_PX - 1:  # between the middles of the outermost cells
            return None
        left, top, width, height = cv2.boundingRect(region)
        part = field[top : top + height, left : left + width]
        mask = np.zeros(part.shape, np.uint8)
        cv2.fillPoly(mask, [region - (left, top)], 1)
        score = float(part[mask > 0].mean())
        grown = sides[0] * sides[1] * self._unclip / (2.0 * (sides[0] + sides[1]))
        return left - grown, top - grown, left + width + grown, top + height + grown, min(max(score, 0.0), 1.0)
