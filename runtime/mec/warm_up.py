"""The warm-up of a MEC: each network at each resolution once, and each codec, in small steps.

The first run of a network loads its weights and builds the kernels of its shapes; 2,592 decisions of a workload share
12 such runs, since every cut and exit lies on the way through its network. They happen while no request waits, stage by
stage, and the networks that are asked for come first.
"""

from __future__ import annotations

import gc
from collections.abc import Iterator

import numpy as np

from runtime.codecs import IMAGE, get_codec
from runtime.inference.segments import Segments

_SMALL_PX = 16


class WarmUp:
    """Owns which runs are left."""

    def __init__(self, segments: Segments) -> None:
        manifest = segments.bundle.manifest
        self._segments = segments
        self._codecs = (*manifest.image_codecs, *manifest.tensor_codecs)
        self._left = [(model, px) for model in segments.bundle.model_names for px in manifest.resolutions_px]
        self._steps = self._run()

    def step(self) -> bool:
        """Run the next stage; False when nothing is left."""
        return next(self._steps, None) is not None

    def prefer(self, model: str) -> None:
        """The runs of this network come first."""
        self._left.sort(key=lambda run: run[0] != model)

    def _run(self) -> Iterator[bool]:
        while self._left:
            for _ in self._segments.passes(*self._left.pop(0)):
                yield True
        for codec in self._codecs:
            self._try(codec)
            yield True
        gc.freeze()  # what was loaded stays, so nobody need look at it again

    def _try(self, name: str) -> None:
        codec, colours = get_codec(name), self._segments.bundle.frame_shape[2:]
        shape = (_SMALL_PX, _SMALL_PX, *colours) if codec.kind == IMAGE else (1, _SMALL_PX, _SMALL_PX)
        codec.decode(codec.encode(np.zeros(shape, codec.dtype)), shape)
