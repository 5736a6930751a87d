"""Types shared by frames, tasks and models: images, splits, outputs."""

from __future__ import annotations

from typing import Any, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

Image = NDArray[np.uint8]  # (h, w) grey or (h, w, 3) colour, blue-green-red
Images = NDArray[np.uint8]  # the same with a leading batch dimension
Outputs: TypeAlias = NDArray[np.floating[Any]]  # (batch, ...) of an exit head
Split = Literal["train", "validation", "test", "all"]  # all: every frame that a device can play, in source order
