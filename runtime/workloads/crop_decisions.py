"""What a workload says about decisions that run a part of the picture."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class CropDecisions:
    """The crops that are worth measuring. A workload with them predicts boxes [x, y, w, h, ...] in pixels of its frame,
    and its samples are frames of a fixed camera."""

    shares: tuple[float, ...]  # of the frame's width and height
    families: tuple[str, ...]  # of models that are run on crops
    resolutions_px: tuple[int, ...]  # at which they are
    image_codecs: tuple[str, ...]  # in which crops are sent; lossless ones need no measurement of their answers
