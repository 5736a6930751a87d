"""The position and scale of a picture in a workload's frame, to convert boxes between the two."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Placement:
    """x in the picture = (x in the frame - left_px) / scale_x; the same for y."""

    width_px: int  # of the picture
    height_px: int  # of the picture
    scale_x: float  # frame pixels per pixel of the picture
    scale_y: float
    left_px: float  # of the picture's corner in the frame
    top_px: float

    def inverse(self, shape: tuple[int, ...]) -> Placement:
        """The placement that converts from the picture to the frame of shape (h, w, ...)."""
        height, width = shape[:2]
        left, top = -self.left_px / self.scale_x, -self.top_px / self.scale_y
        return Placement(width, height, 1.0 / self.scale_x, 1.0 / self.scale_y, left, top)

    def boxes(self, boxes: Sequence[Sequence[float]]) -> list[list[float]]:
        """Convert boxes [x, y, w, h, ...] from pixels of the frame to pixels of the picture, rounded to 0.1.

        Boxes are clipped to the picture; a box outside the picture is removed.
        """
        found = (self._box(*box) for box in boxes)
        return [box for box in found if box[2] > 0 and box[3] > 0]

    def _box(self, x: float, y: float, w: float, h: float, *rest: float) -> list[float]:
        left, right = (_within((edge - self.left_px) / self.scale_x, self.width_px) for edge in (x, x + w))
        top, bottom = (_within((edge - self.top_px) / self.scale_y, self.height_px) for edge in (y, y + h))
        return [round(left, 1), round(top, 1), round(right - left, 1), round(bottom - top, 1), *rest]


def _within(at: float, size_px: int) -> float:
    return min(max(at, 0.0), float(size_px))
