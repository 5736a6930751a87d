"""Draw the answers of an adopted workload."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np

from runtime.workloads.adopted.detections import CLASS
from runtime.workloads.drawing import captioned, draw_boxes, tag
from runtime.workloads.types import Image

_LONGEST = 60  # characters of a caption


def draw_answer(image: Image, prediction: Any, task: str, classes: Sequence[str]) -> Image:
    """The frame as (h, w, 3) with an answer on it; None draws only the frame."""
    if task not in ("detect", "text"):
        text = "" if prediction is None else str(prediction)
        if task == "classify" and prediction is not None:
            text = name_of(classes, int(prediction))
        return captioned(image, text[:_LONGEST])
    colour = image if image.ndim == 3 else np.asarray(cv2.cvtColor(image, cv2.COLOR_GRAY2BGR), np.uint8)
    boxes = prediction or ()
    drawn = draw_boxes(colour, [box[:CLASS] for box in boxes])
    for x, y, *_, label in ((*box[:2], _label(box, classes)) for box in boxes):
        if label:
            tag(drawn, label, (round(x) + 4, round(y) - 6), 0.5)
    return drawn


def _label(box: Sequence[float], classes: Sequence[str]) -> str:
    """Class, where there are several, and the number of a tracked object, which follows the class."""
    parts = [name_of(classes, int(box[CLASS]))] if len(classes) != 1 and len(box) > CLASS else []
    return " ".join([*parts, *(f"{number:g}" for number in box[CLASS + 1 :])])


def name_of(classes: Sequence[str], number: int) -> str:
    """The name of a class, or its number where names are not known."""
    return classes[number] if 0 <= number < len(classes) else str(number)
