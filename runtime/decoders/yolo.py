"""Decoders of the YOLO families, as their makers export them to ONNX: boxes in pixels, scores after the sigmoid.

YOLOv5 (also v7): (boxes, 5 + classes): middle, size, objectness, classes. YOLOv8, v9 and v11: (4 + classes, boxes):
middle, size, classes. YOLOX (Ge et al., 2021, section 2): as v5, and unless its export decoded them, middle and size
are relative to a grid of 8, 16 and 32 pixels: x = (cell + x') stride, w = exp(w') stride.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache

import numpy as np

from runtime.decoders.base import Decoder, Floats, Size, register_decoder
from runtime.decoders.boxes import as_fractions, best_class, candidates, from_middles
from runtime.models.packing import Shapes

YOLOX_STRIDES = (8, 16, 32)
LARGEST_LOG_SIDE = 10.0  # of a box, in strides; a larger one is no box


@register_decoder
class Yolov8(Decoder):
    """One score for each class and no objectness. ``order`` says which axis the boxes are; auto: the longer one."""

    name = "yolov8"
    expected = "one output, (4 + classes, boxes) or (boxes, 4 + classes)"

    def __init__(self, order: str = "auto") -> None:
        self._order = _order(order)

    def fits(self, shapes: Shapes) -> bool:
        return _is_table(shapes) and self._values(shapes) >= 5

    def classes(self, shapes: Shapes) -> int:
        return self._values(shapes) - 4

    def decode(self, outputs: Sequence[Floats], size: Size) -> Floats:
        rows = _rows(outputs[0], self._order)
        scores, classes = best_class(rows[:, 4:])
        return candidates(as_fractions(from_middles(rows), size), np.clip(scores, 0.0, 1.0), classes)

    def _values(self, shapes: Shapes) -> int:
        return _values(shapes[0], self._order)


@register_decoder
class Yolov5(Decoder):
    """Objectness, which the score of the best class multiplies."""

    name = "yolov5"
    expected = "one output, (boxes, 5 + classes) or (5 + classes, boxes)"

    def __init__(self, order: str = "auto") -> None:
        self._order = _order(order)

    def fits(self, shapes: Shapes) -> bool:
        return _is_table(shapes) and _values(shapes[0], self._order) >= 6

    def classes(self, shapes: Shapes) -> int:
        return _values(shapes[0], self._order) - 5

    def decode(self, outputs: Sequence[Floats], size: Size) -> Floats:
        rows = _rows(outputs[0], self._order)
        return _with_objectness(from_middles(rows), rows, size)


@register_decoder
class Yolox(Decoder):
    """As YOLOv5, on grids; with ``decoded`` the export has undone the grids (``decode_in_inference``)."""

    name = "yolox"
    expected = "one output, (boxes, 5 + classes), with a box for each cell of grids of 8, 16 and 32 pixels"

    def __init__(self, decoded: bool = False) -> None:
        self._decoded = bool(decoded)

    def fits(self, shapes: Shapes) -> bool:
        return _is_table(shapes) and shapes[0][-1] >= 6 and shapes[0][-2] % 21 == 0  # 16 + 4 + 1 cells per 32 pixels

    def classes(self, shapes: Shapes) -> int:
        return shapes[0][-1] - 5

    def decode(self, outputs: Sequence[Floats], size: Size) -> Floats:
        rows = outputs[0].reshape(-1, outputs[0].shape[-1])
        middles = rows[:, :4]
        if not self._decoded:
            cells, strides = _grid(size)
            if len(cells) != len(rows):
                raise ValueError(f"{len(rows)} boxes for an input of {size}; expected {len(cells)}")
            sides = np.exp(np.minimum(middles[:, 2:], LARGEST_LOG_SIDE))
            middles = np.concatenate(((middles[:, :2] + cells) * strides, sides * strides), axis=1)
        return _with_objectness(from_middles(middles), rows, size)


def _with_objectness(corners: Floats, rows: Floats, size: Size) -> Floats:
    scores, classes = best_class(rows[:, 5:])
    return candidates(as_fractions(corners, size), np.clip(scores * rows[:, 4], 0.0, 1.0), classes)


@cache
def _grid(size: Size) -> tuple[Floats, Floats]:
    """(n, 2) column and row of each cell, and (n, 1) its stride, finest grid first."""
    cells, strides = [], []
    for stride in YOLOX_STRIDES:
        rows, columns = np.mgrid[: size[0] // stride, : size[1] // stride]
        cells.append(np.stack((columns.ravel(), rows.ravel()), 1))
        strides.append(np.full((rows.size, 1), stride))
    return np.concatenate(cells).astype(np.float32), np.concatenate(strides).astype(np.float32)


def _order(text: str) -> str:
    if text not in ("auto", "boxes_first", "boxes_last"):
        raise ValueError(f"order {text!r}; expected auto, boxes_first or boxes_last")
    return text


def _is_table(shapes: Shapes) -> bool:
    """Whether there is one output of two dimensions, apart from leading ones of 1."""
    return len(shapes) == 1 and len(shapes[0]) >= 2 and all(side == 1 for side in shapes[0][:-2])


def _boxes_last(shape: tuple[int, ...], order: str) -> bool:
    return shape[-1] > shape[-2] if order == "auto" else order == "boxes_last"


def _values(shape: tuple[int, ...], order: str) -> int:
    return shape[-2] if _boxes_last(shape, order) else shape[-1]


def _rows(output: Floats, order: str) -> Floats:
    """(boxes, values) of an output in either order."""
    table = output.reshape(output.shape[-2:])
    return table.T if _boxes_last(table.shape, order) else table
