"""How are text and colours put on a picture? The few strokes that every picture here is made of."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
from numpy.typing import NDArray

Picture = NDArray[np.uint8]  # (h, w, 3)
Colour = tuple[int, int, int]  # blue, green, red

WHITE: Colour = (255, 255, 255)
INK: Colour = (235, 235, 235)
FAINT: Colour = (170, 170, 170)
GREY: Colour = (120, 120, 120)
BOX: Colour = (90, 230, 120)
PAPER: Colour = (32, 30, 28)
FONT = cv2.FONT_HERSHEY_SIMPLEX


def blank(height_px: int, width_px: int, colour: Colour = PAPER) -> Picture:
    return np.full((height_px, width_px, 3), colour, np.uint8)


def text_width(text: str, size: float) -> int:
    return int(cv2.getTextSize(text, FONT, size, 1)[0][0])


def write(
    image: Picture, text: str, at: tuple[int, int], size: float, colour: Colour = INK, *, align: str = "left"
) -> None:
    """Text with its base line beginning (or, aligned right, ending) there."""
    x, y = at
    if align == "right":
        x -= text_width(text, size)
    if text:
        cv2.putText(image, text, (x, y), FONT, size, colour, 1, cv2.LINE_AA)


def tag(image: Picture, text: str, at: tuple[int, int], size: float, colour: Colour = PAPER) -> None:
    """Text on a filled ground, so that it can be read on any picture."""
    x, y = at
    height = round(size * 26)
    cv2.rectangle(image, (x - 4, y - height + 5), (x + text_width(text, size) + 4, y + 6), colour, -1)
    write(image, text, at, size, WHITE)


def draw_boxes(image: Picture, boxes: Sequence[Sequence[float]], colour: Colour = BOX) -> Picture:
    """A copy of a colour picture with boxes [x, y, w, h, ...] in its pixels."""
    drawn = image.copy()
    for x, y, w, h, *_ in boxes:
        corners = (round(x), round(y)), (round(x + w), round(y + h))
        cv2.rectangle(drawn, *corners, PAPER, 4, cv2.LINE_AA)  # a dark rim, for bright grounds
        cv2.rectangle(drawn, *corners, colour, 2, cv2.LINE_AA)
    return drawn
