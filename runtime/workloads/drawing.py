"""Functions to draw text and boxes on pictures. Workloads and the pictures of a run use only these."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
from numpy.typing import NDArray

Picture = NDArray[np.uint8]  # (h, w, 3) blue, green, red
Colour = tuple[int, int, int]  # blue, green, red

WHITE: Colour = (255, 255, 255)
LIGHT: Colour = (235, 235, 235)
FAINT: Colour = (170, 170, 170)
GREY: Colour = (120, 120, 120)
BOX: Colour = (90, 230, 120)
BACKGROUND: Colour = (32, 30, 28)
FONT = cv2.FONT_HERSHEY_SIMPLEX
CAPTIONED_WIDTH_PX = 280  # small images are enlarged to at least this width


def blank(height_px: int, width_px: int, colour: Colour = BACKGROUND) -> Picture:
    """A picture (height, width, 3) of one colour."""
    return np.full((height_px, width_px, 3), colour, np.uint8)


def text_width(text: str, size: float) -> int:
    """Width of a text in pixels."""
    return int(cv2.getTextSize(text, FONT, size, 1)[0][0])


def write(
    image: Picture, text: str, at: tuple[int, int], size: float, colour: Colour = LIGHT, *, align: str = "left"
) -> None:
    """Write text on the image, in place. ``at`` (x, y) is the left end of the baseline; with align "right", the right
    end."""
    x, y = at
    if align == "right":
        x -= text_width(text, size)
    if text:
        cv2.putText(image, text, (x, y), FONT, size, colour, 1, cv2.LINE_AA)


def tag(image: Picture, text: str, at: tuple[int, int], size: float, colour: Colour = BACKGROUND) -> None:
    """Write text on a filled rectangle, readable on any picture. ``at`` as in ``write``."""
    x, y = at
    height = round(size * 26)
    cv2.rectangle(image, (x - 4, y - height + 5), (x + text_width(text, size) + 4, y + 6), colour, -1)
    write(image, text, at, size, WHITE)


def draw_boxes(image: Picture, boxes: Sequence[Sequence[float]], colour: Colour = BOX) -> Picture:
    """A copy of a colour picture with boxes [x, y, w, h, score], in pixels of the picture. The number of a tracked
    object follows its score."""
    drawn = image.copy()
    for x, y, w, h, *rest in boxes:
        corners = (round(x), round(y)), (round(x + w), round(y + h))
        cv2.rectangle(drawn, *corners, BACKGROUND, 4, cv2.LINE_AA)  # a dark outline, visible on bright pictures
        cv2.rectangle(drawn, *corners, colour, 2, cv2.LINE_AA)
        for number in rest[1:]:
            tag(drawn, f"{number:g}", (corners[0][0] + 4, corners[0][1] - 6), 0.5)
    return drawn


def captioned(image: NDArray[np.uint8], text: str) -> Picture:
    """The image (h, w) or (h, w, 3) as a colour picture with text near its lower edge. A small one is enlarged."""
    factor = -(-CAPTIONED_WIDTH_PX // image.shape[1])
    large = cv2.resize(image, None, fx=factor, fy=factor, interpolation=cv2.INTER_NEAREST)
    drawn = np.asarray(large if image.ndim == 3 else cv2.cvtColor(large, cv2.COLOR_GRAY2BGR), np.uint8)
    if text:
        tag(drawn, text, (10, drawn.shape[0] - 12), 0.6)
    return drawn
