"""The profiler times payloads that refer to earlier ones."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from support.once import once
from support.stream_bundle import CHAINED, FREE, TENSOR, WORKLOAD, make
from support.xor_streams import register

from controller.records import Decision
from runtime.bundles.bundle import Bundle
from runtime.inference.segments import Segments
from runtime.inference.steady import steady_stream
from runtime.profiling.measure import measure_sides
from runtime.profiling.profile import head_key, tail_key
from runtime.workloads.registry import get_workload


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    torch.set_num_threads(1)
    register()
    return Bundle(once(tmp_path_factory, "streams", lambda path: (path.mkdir(), make(path))) / "bundle")


@pytest.mark.parametrize("decision", [FREE, CHAINED, TENSOR], ids=lambda d: d.payload)
def test_after_the_first_frame_every_payload_has_a_reference_and_is_the_same_frame(
    bundle: Bundle, decision: Decision
) -> None:
    segments = Segments(bundle, get_workload(WORKLOAD))
    stream = steady_stream(bundle, decision)
    assert stream is not None
    alone = []
    for _ in range(3):
        for number in range(4):
            array = segments.head_array(segments.workload.sample(number)[0], decision)
            stream.encode(array)
            alone.append(stream.encoded.reference_id == 0)
            np.testing.assert_array_equal(stream.decode(), array)
    assert alone == [True] + [False] * 11


def test_a_codec_without_references_has_no_stream(bundle: Bundle) -> None:
    assert steady_stream(bundle, Decision("resnet", 28, 3, 2, "u8")) is None


def test_streams_are_measured_beside_the_other_codecs(bundle: Bundle) -> None:
    found = measure_sides(bundle, get_workload(WORKLOAD), ("device", "mec"), 0.1, lambda _: None)
    heads = {segment.key: segment.median_s for segment in found["device"].segments}
    tails = {segment.key: segment.median_s for segment in found["mec"].segments}
    for decision in (FREE, CHAINED, TENSOR):
        assert 0 < heads[head_key(decision)] < 1.0
        assert 0 < tails[tail_key(decision)] < 1.0
