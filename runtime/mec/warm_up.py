"""The warm-up of a MEC: run each network at each resolution once, and each codec, in small steps.

The first run of a network loads its weights and builds the kernels for its shapes. One run through a network, from its
first cut on, covers all its cuts and exits, so 12 runs warm up the 2,592 decisions of a workload. They are run stage by
stage while no request waits; networks that devices request come first.
"""

from __future__ import annotations

import gc
from collections.abc import Iterator

import numpy as np

from runtime.codecs import IMAGE, TENSOR, get_codec
from runtime.codecs.streams import stream_codec
from runtime.inference.segments import Segments
from runtime.inference.steady import steady_stream

_SMALL_PX = 16


class WarmUp:
    """Owns the list of remaining runs."""

    def __init__(self, segments: Segments) -> None:
        manifest = segments.bundle.manifest
        self._segments = segments
        names = (*manifest.codecs_of_kind(IMAGE), *manifest.codecs_of_kind(TENSOR))
        self._codecs = [name for name in names if not get_codec(name).missing]
        self._left = [(model.name, px) for model in manifest.models for px in manifest.resolutions_of(model)]
        self._steps = self._run()

    def step(self) -> bool:
        """Run the next stage or codec; False when all are done."""
        return next(self._steps, None) is not None

    def prefer(self, model: str) -> None:
        """Move the runs of a network to the front."""
        self._left.sort(key=lambda run: run[0] != model)

    def _run(self) -> Iterator[bool]:
        while self._left:
            for _ in self._segments.passes(*self._left.pop(0)):
                yield True
        for codec in self._codecs:
            (self._run_codec if stream_codec(codec) is None else self._run_stream)(codec)
            yield True
        gc.freeze()  # loaded objects stay for good, so later collections can skip them

    def _run_codec(self, name: str) -> None:
        codec, colours = get_codec(name), self._segments.bundle.frame_shape[2:]
        shape = (_SMALL_PX, _SMALL_PX, *colours) if codec.kind == IMAGE else (1, _SMALL_PX, _SMALL_PX)
        codec.decode(codec.encode(np.zeros(shape, codec.dtype)), shape)

    def _run_stream(self, name: str) -> None:
        """Send two blank arrays over the first stream of that codec; the second may refer to the first."""
        segments = self._segments
        decision = next((d for d in segments.bundle.space.decisions if d.payload == name), None)
        if decision is None:
            return
        stream = steady_stream(segments.bundle, decision)
        assert stream is not None
        shape = segments.bundle.payload_shape(decision.model, decision.resolution_px, decision.partition_point)
        blank = np.zeros(shape, get_codec(name).dtype)
        for _ in range(2):
            stream.encode(blank)
            stream.decode()
