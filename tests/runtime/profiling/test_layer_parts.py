"""Steps are timed as they run: a cut through several tensors with the codec that sends them."""

from __future__ import annotations

import numpy as np
import pytest

from runtime.bundles.bundle import open_bundle
from runtime.codecs.several import codec_for
from runtime.inference.segments import Segments
from runtime.profiling.layer_parts import codec_parts
from runtime.workloads.registry import get_workload


@pytest.mark.parametrize("codec", ["u8", "u1"])
@pytest.mark.parametrize("tensors", [((256,),), ((8, 4, 4), (16,))], ids=["vector", "map-and-vector"])
def test_packed_tensors_are_coded_one_by_one(codec: str, tensors: tuple[tuple[int, ...], ...]) -> None:
    segments = Segments(open_bundle("garments"), get_workload("garments"))
    count = sum(int(np.prod(shape)) for shape in tensors)
    packed = np.random.default_rng(0).normal(size=count).astype(np.float32)
    parts = codec_parts(segments, ("model", 64, 1, codec), packed, 0, tensors)
    encoding, decoding = (parts[side, "model", 64, 1, codec].layers[0].call for side in ("encode", "decode"))
    assert encoding() == codec_for(codec, tensors).encode(packed)
    assert decoding().shape == packed.shape
