"""The decoder of classifiers: logits or probabilities of classes."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from runtime.decoders.base import Decoder, Floats, Size, register_decoder
from runtime.models.packing import Shapes

_LEAST_PROBABILITY = 1e-9


@register_decoder
class Classify(Decoder):
    """Logits (classes,); ``probabilities``: the model ends with a softmax, which is undone by the logarithm."""

    name = "classify"
    expected = "one output with at least two values, a score for each class"

    def __init__(self, probabilities: bool = False) -> None:
        self._probabilities = bool(probabilities)

    def fits(self, shapes: Shapes) -> bool:
        sides = [side for shape in shapes for side in shape if side != 1]
        return len(shapes) == 1 and len(sides) == 1

    def classes(self, shapes: Shapes) -> int:
        return math.prod(shapes[0])

    def decode(self, outputs: Sequence[Floats], size: Size) -> Floats:
        values = outputs[0].reshape(-1)
        return np.log(np.maximum(values, _LEAST_PROBABILITY)) if self._probabilities else values
