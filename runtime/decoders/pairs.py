"""Decoders of models with boxes in one output and scores in another: SSD, and transformers like DETR."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from runtime.decoders.base import Decoder, Floats, Size, register_decoder
from runtime.decoders.boxes import as_fractions, best_class, candidates, from_middles, sigmoid, softmax
from runtime.models.packing import Shapes

_CORNERS = {"xyxy": (0, 1, 2, 3), "yxyx": (1, 0, 3, 2)}
_LARGEST_FRACTION = 2.0  # boxes whose sides are all below it are taken for fractions


@register_decoder
class Ssd(Decoder):
    """Boxes that are decoded already, and scores of classes after the softmax.

    ``order``: xyxy, yxyx or middle (x, y, w, h). ``units``: fraction or pixels; auto looks at the values.
    ``background``: whether the first class is the background.
    """

    name = "ssd"
    expected = "two outputs in any order, boxes (boxes, 4) and scores (boxes, classes)"

    def __init__(self, order: str = "xyxy", units: str = "auto", background: bool = True) -> None:
        if order not in (*_CORNERS, "middle") or units not in ("auto", "fraction", "pixels"):
            raise ValueError(
                f"order {order!r}, units {units!r}; expected xyxy, yxyx or middle; auto, fraction or pixels"
            )
        self._order, self._units, self._background = order, units, bool(background)

    def fits(self, shapes: Shapes) -> bool:
        pair = _pair(shapes)
        return pair is not None and _table(shapes[pair[1]])[1] > self._background

    def classes(self, shapes: Shapes) -> int:
        pair = _pair(shapes)
        assert pair is not None, "fits"
        return _table(shapes[pair[1]])[1] - self._background

    def decode(self, outputs: Sequence[Floats], size: Size) -> Floats:
        boxes, scores = _boxes_and_scores(outputs)
        corners = from_middles(boxes) if self._order == "middle" else boxes[:, _CORNERS[self._order]]
        if self._units == "pixels" or (self._units == "auto" and np.abs(corners).max(initial=0.0) > _LARGEST_FRACTION):
            corners = as_fractions(corners, size)
        best, classes = best_class(scores[:, int(self._background) :])
        return candidates(corners, np.clip(best, 0.0, 1.0), classes)


@register_decoder
class Detr(Decoder):
    """Queries with a box each, middle and size as fractions (Carion et al., 2020).

    ``activation``: softmax, whose last class is "no object" (DETR); sigmoid (Deformable DETR, RT-DETR); none, for
    scores that the export has activated.
    """

    name = "detr"
    needs_size = False
    expected = "boxes (queries, 4) and logits (queries, classes) in any order, or one output (queries, 4 + classes)"

    def __init__(self, activation: str = "softmax") -> None:
        if activation not in ("softmax", "sigmoid", "none"):
            raise ValueError(f"activation {activation!r}; expected softmax, sigmoid or none")
        self._activation = activation

    def fits(self, shapes: Shapes) -> bool:
        count = self._columns(shapes)
        return count is not None and count > (self._activation == "softmax")

    def classes(self, shapes: Shapes) -> int:
        count = self._columns(shapes)
        assert count is not None, "fits"
        return count - (self._activation == "softmax")

    def decode(self, outputs: Sequence[Floats], size: Size) -> Floats:
        if len(outputs) == 1:
            rows = outputs[0].reshape(-1, outputs[0].shape[-1])
            boxes, logits = rows[:, :4], rows[:, 4:]
        else:
            boxes, logits = _boxes_and_scores(outputs)
        scores = logits
        if self._activation == "softmax":
            scores = softmax(logits)[:, :-1]
        elif self._activation == "sigmoid":
            scores = sigmoid(logits)
        best, classes = best_class(scores)
        return candidates(from_middles(boxes), np.clip(best, 0.0, 1.0), classes)

    def _columns(self, shapes: Shapes) -> int | None:
        """Columns of the scores."""
        if len(shapes) == 1 and len(shapes[0]) >= 2 and all(side == 1 for side in shapes[0][:-2]):
            return shapes[0][-1] - 4 if shapes[0][-1] > 4 else None
        pair = _pair(shapes)
        return None if pair is None else _table(shapes[pair[1]])[1]


def _table(shape: tuple[int, ...]) -> tuple[int, int]:
    """Rows and columns of an output, without leading ones of 1 and what follows the rows flattened; (0, 0): none."""
    while len(shape) > 2 and shape[0] == 1:
        shape = shape[1:]
    if len(shape) == 3 and shape[1] == 1:  # TensorFlow's exports have boxes (n, 1, 4)
        shape = (shape[0], shape[2])
    return (shape[0], shape[1]) if len(shape) == 2 else (0, 0)


def _pair(shapes: Shapes) -> tuple[int, int] | None:
    """Which output has the boxes and which the scores; None where two outputs do not tell.

    Boxes come first where both have four columns.
    """
    tables = [_table(shape) for shape in shapes]
    if len(tables) != 2 or tables[0][0] != tables[1][0] or not tables[0][0]:
        return None
    return next(((at, 1 - at) for at in range(2) if tables[at][1] == 4), None)


def _boxes_and_scores(outputs: Sequence[Floats]) -> tuple[Floats, Floats]:
    pair = _pair(tuple(output.shape for output in outputs))
    assert pair is not None, "fits"
    boxes, scores = (outputs[at].reshape(_table(outputs[at].shape)) for at in pair)
    return boxes, scores
