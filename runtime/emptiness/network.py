"""The tiny network that says, for each cell of a picture, whether somebody's middle is there. Forward pass in numpy.

Its input is the difference from the background (``runtime.emptiness.background``), signed and absolute. Two 3 x 3
convolutions with stride 2 and one with stride 1, all with ReLU, lead to one logit per cell of 4 x 4 small pixels. It
looks at each place alike, so a network that was trained on whole frames works on any window. The score of a picture is
its largest logit.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from runtime.emptiness.background import Small

Floats = NDArray[np.float32]

#: Small pixels per cell, in both directions.
CELL = 4
#: Differences are divided by this, in grey levels, and clipped at four times it.
LEVELS = 24.0


class Weights(NamedTuple):
    """Kernels (out, in, 3, 3), and biases (out,)."""

    first: Floats  # (8, 2, 3, 3), stride 2
    first_bias: Floats
    second: Floats  # (16, 8, 3, 3), stride 2
    second_bias: Floats
    third: Floats  # (16, 16, 3, 3)
    third_bias: Floats
    last: Floats  # (1, 16, 1, 1)
    last_bias: Floats

    @property
    def numbers(self) -> int:
        """How many these are."""
        return sum(array.size for array in self)


#: What each array must look like.
SHAPES = Weights(
    *(
        np.zeros(shape, np.float32)
        for shape in ((8, 2, 3, 3), (8,), (16, 8, 3, 3), (16,), (16, 16, 3, 3), (16,), (1, 16, 1, 1), (1,))
    )
)


def network_input(levels: Small) -> Floats:
    """(2, h, w) from a difference (h, w)."""
    scaled = np.clip(levels * np.float32(1.0 / LEVELS), -4.0, 4.0)
    return np.stack((scaled, np.abs(scaled)))


def logits(weights: Weights, levels: Small) -> Floats:
    """(h / 4, w / 4) logit of each cell."""
    found = network_input(levels)
    found = _convolved(found, weights.first, weights.first_bias, 2)
    found = _convolved(found, weights.second, weights.second_bias, 2)
    found = _convolved(found, weights.third, weights.third_bias, 1)
    cells = np.tensordot(weights.last[:, :, 0, 0], found, axes=1) + weights.last_bias[:, None, None]
    return np.asarray(cells[0])


def score(weights: Weights, levels: Small) -> float:
    """The largest logit; not a number if any difference is none."""
    return float(logits(weights, levels).max())


def _convolved(picture: Floats, kernel: Floats, bias: Floats, stride: int) -> Floats:
    """ReLU of a 3 x 3 convolution with zeros around the picture (channels, h, w)."""
    padded = np.pad(picture, ((0, 0), (1, 1), (1, 1)))
    patches = sliding_window_view(padded, (3, 3), axis=(1, 2))[:, ::stride, ::stride]  # (channels, h, w, 3, 3)
    columns = patches.transpose(0, 3, 4, 1, 2).reshape(kernel[0].size, -1)
    found = kernel.reshape(len(kernel), -1) @ columns + bias[:, None]
    return np.asarray(np.maximum(found, 0.0).reshape(len(kernel), *patches.shape[1:3]))
