"""What a scene looks like while nothing is there, and how a picture differs from that.

The background is a level for each pixel of a small copy. It follows the pictures by a small step up or down, whatever
the size of the difference, so it tends to their median (sigma-delta estimation: Manzanera and Richefeu, "A New Motion
Detection Algorithm Based on Sigma-Delta Background Estimation", Pattern Recognition Letters 2007): somebody who walks
by hardly changes it. It follows pictures that may show something ten times slower, so that somebody who stands for a
minute stays visible.
"""

from __future__ import annotations

from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from runtime.workloads.types import Image

Small = NDArray[np.float32]  # (h, w), 0 to 255

#: Lines of a small copy of a whole frame, about: people of a surveillance camera are still some pixels wide.
SMALL_LINES = 144
#: Step of the background per picture, in grey levels: after a picture that is empty, or that shows another place, and
#: after any other. At ten pictures a second an object that is 50 levels darker becomes background in four minutes.
FAST_STEP, SLOW_STEP = 0.2, 0.02
#: The light changes slowly. A picture that is brighter or darker by more has another gain.
LEAST_GAIN, MOST_GAIN = 0.87, 1.15
#: A pixel has changed if it differs by more grey levels than this. Where a larger share has, nothing is said about the
#: picture: a person in a window of 192 x 144 pixels covers 0.05 of it, a camera moved by 9 lines changes 0.1 to 0.6.
CHANGED_LEVELS, MOST_CHANGED = 15.0, 0.1
#: From this share on, it shows another place.
OTHER_PLACE = 0.4


class Difference(NamedTuple):
    """How a picture differs from the background."""

    levels: Small  # (h, w), positive where the picture is brighter
    changed: float  # share of the pixels
    gain: float  # background / picture

    @property
    def is_sure(self) -> bool:
        """Whether it says anything about who is there. Nothing is, where a value is not a number."""
        return LEAST_GAIN <= self.gain <= MOST_GAIN and self.changed <= MOST_CHANGED

    @property
    def is_other_place(self) -> bool:
        """Whether this place, or its light, is another one now, so that the background must be learned anew."""
        return not LEAST_GAIN <= self.gain <= MOST_GAIN or self.changed > OTHER_PLACE


def small_copy(picture: Image, step: int) -> Small:
    """(h / step, w / step) averages of the green channel of a picture (h, w[, 3]), or of its only one."""
    green = picture[:, :, 1] if picture.ndim == 3 else picture
    height, width = (max(1, round(side / step)) for side in green.shape)
    found = cv2.resize(np.ascontiguousarray(green), (width, height), interpolation=cv2.INTER_AREA)
    return np.asarray(found, np.float32)


class Background:
    """Owns the level of each pixel."""

    def __init__(self, level: Small) -> None:
        self._level = level.astype(np.float32)

    def difference(self, small: Small) -> Difference:
        """Of a picture, after its brightness was scaled to that of the background."""
        wanted, got = (float(np.median(levels[::2, ::2])) for levels in (self._level, small))
        gain = (wanted + 1.0) / (got + 1.0)
        levels = np.float32(gain) * small - self._level
        return Difference(levels, float(np.mean(np.abs(levels) > CHANGED_LEVELS)), gain)

    def follow(self, small: Small, step: float) -> None:
        """Take a step in the direction of a picture."""
        self._level += np.clip(small - self._level, -step, step).astype(np.float32)
