"""Decoders without boxes: logits or probabilities of classes, and values as they are."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from runtime.decoders.base import Decoder, Floats, Size, register_decoder
from runtime.models.packing import Shapes

_LEAST_PROBABILITY = 1e-9
_SUM_TOLERANCE = 1e-3


@register_decoder
class Classify(Decoder):
    """Logits (classes,); ``probabilities``: the model ends with a softmax, which is undone by the logarithm.

    With "auto", values that are probabilities are taken for such.
    """

    name = "classify"
    needs_size = False
    expected = "one output with at least two values, a score for each class"
    boxes = False

    def __init__(self, probabilities: bool | str = "auto") -> None:
        if probabilities not in (True, False, "auto"):
            raise ValueError(f"probabilities {probabilities!r}; expected true, false or auto")
        self._probabilities = probabilities

    def fits(self, shapes: Shapes) -> bool:
        sides = [side for shape in shapes for side in shape if side != 1]
        return len(shapes) == 1 and len(sides) == 1

    def classes(self, shapes: Shapes) -> int:
        return math.prod(shapes[0])

    def decode(self, outputs: Sequence[Floats], size: Size) -> Floats:
        values = outputs[0].reshape(-1)
        undone = self._probabilities if self._probabilities != "auto" else _are_probabilities(values)
        return np.log(np.maximum(values, _LEAST_PROBABILITY)) if undone else values


def _are_probabilities(values: Floats) -> bool:
    return bool((values >= 0.0).all() and abs(float(values.sum()) - 1.0) <= _SUM_TOLERANCE)


@register_decoder
class Values(Decoder):
    """All outputs one after the other, for tasks whose answers are neither boxes nor classes."""

    name = "values"
    needs_size = False
    expected = "any outputs"
    boxes = False

    def fits(self, shapes: Shapes) -> bool:
        return True

    def decode(self, outputs: Sequence[Floats], size: Size) -> Floats:
        return np.concatenate([output.reshape(-1) for output in outputs])
