"""Which image sizes a foreign model takes, found by running it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import product
from typing import Any

import numpy as np

from controller.errors import UsageError
from runtime.onnx_graphs.library import open_session, reason
from runtime.onnx_graphs.reading import ForeignModel, ImageInput

#: Sizes that models are made for, tried in this order for an axis that the file leaves open.
_USUAL = (256, 224, 320, 48, 112, 160, 192, 384, 448, 512, 640)
_MULTIPLES = (1, 2, 4, 8, 16, 32, 64)


@dataclass(frozen=True)
class Axis:
    """The sizes of one side of the image: multiples of ``multiple``, or only ``size`` where that is 0."""

    size: int  # one that works
    multiple: int


@dataclass(frozen=True)
class Sizes:
    """The images that a model takes."""

    height: Axis
    width: Axis


def possible_sizes(model: ForeignModel) -> Sizes:
    """The sizes that a model takes; UsageError when it leaves them open and takes none of the usual ones.

    An axis is open when the file does not state its size and the model runs at others, with outputs that stay as
    large or grow in proportion to the image. Where they do not, a part of the picture would fall off an edge.
    """
    trial = _Trial(model)
    height, width = trial.first_that_runs()
    open_height, open_width = not model.image.height, not model.image.width
    return Sizes(
        Axis(height, trial.multiple(lambda size: (size, width), height) if open_height else 0),
        Axis(width, trial.multiple(lambda size: (height, size), width) if open_width else 0),
    )


class _Trial:
    """Runs a model at sizes. Owns the session and the number of output values at the size that runs first."""

    def __init__(self, model: ForeignModel) -> None:
        self._name, self._image = model.name, model.image
        self._session = open_session(model.proto, level="ORT_ENABLE_BASIC")
        self._values = list[int]()

    def first_that_runs(self) -> tuple[int, int]:
        said = ""
        for size in _trial_sizes(self._image):
            try:
                self._values = self._output_values(size)
            except Exception as error:  # noqa: BLE001 - the library's errors have no common base
                said = reason(error)
            else:
                return size
        raise UsageError(
            f"{self._name}: no image size that it takes was found, the last try gave: {said}; "
            "export it with a fixed input size"
        )

    def multiple(self, with_side: Callable[[int], tuple[int, int]], side: int) -> int:
        """The smallest multiple by which one side may differ from the first size; 0 for none."""
        factors = self._growth(with_side(2 * side), Fraction(2))
        if factors is None:
            return 0
        for multiple in _MULTIPLES:
            longer = Fraction(side + multiple, side)
            if side % multiple == 0 and self._growth(with_side(side + multiple), longer) == factors:
                return multiple
        return 0

    def _growth(self, size: tuple[int, int], longer: Fraction) -> list[bool] | None:
        """Whether each output grows with a side that is ``longer`` by a factor, or stays; None if neither, or it fails.

        An output that rounds its size down is neither at most sizes.
        """
        try:
            found = self._output_values(size)
        except Exception:  # noqa: BLE001 - a size that it does not take
            return None
        factors = [Fraction(new, old) for old, new in zip(self._values, found, strict=True)]
        return [factor == longer for factor in factors] if set(factors) <= {1, longer} else None

    def _output_values(self, size: tuple[int, int]) -> list[int]:
        image = self._image
        shape = (image.channels, *size) if image.layout == "NCHW" else (*size, image.channels)
        outputs: Sequence[Any] = self._session.run(None, {image.name: np.full((1, *shape), 0.5, image.dtype)})
        return [output.size for output in outputs]


def _trial_sizes(image: ImageInput) -> Iterator[tuple[int, int]]:
    """Sizes that the file states, completed with usual ones: squares first."""
    heights = (image.height,) if image.height else _USUAL
    widths = (image.width,) if image.width else _USUAL
    pairs = list(product(heights, widths))
    yield from (pair for pair in pairs if pair[0] == pair[1])
    yield from (pair for pair in pairs if pair[0] != pair[1])
