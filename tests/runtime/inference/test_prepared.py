"""No frame pays for compilation: a device and a MEC of campus have everything ready before the first one."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from controller.records import Decision
from runtime.bundles.bundle import Bundle, open_pair
from runtime.codecs import get_codec
from runtime.codecs.signs.compiled import compiled_passes
from runtime.compiler import Compiled
from runtime.device.local_compute import LocalCompute
from runtime.inference.segments import Segments
from runtime.inference.steady import steady_stream
from runtime.inference.streams import encode_alone
from runtime.mec.warm_up import WarmUp
from runtime.models.pixel_encoder import compiled_encoder
from runtime.workloads import area
from runtime.workloads.base import Workload
from runtime.workloads.campus.workload import Campus


@pytest.fixture(autouse=True)
def nothing_compiled() -> None:
    """As in a new process."""
    for prepared in (compiled_passes, compiled_encoder, area._average):
        prepared.cache_clear()


@pytest.fixture
def ready(monkeypatch: pytest.MonkeyPatch) -> Any:
    """A function after whose call nothing may be compiled or loaded."""

    def refused(*_: Any) -> None:
        raise AssertionError("something was compiled late")

    return lambda: monkeypatch.setattr(Compiled, "_prepare", refused)


@pytest.fixture(scope="module")
def pair() -> tuple[Bundle, Workload]:
    return open_pair("campus", None)


def of_signs(bundle: Bundle) -> list[Decision]:
    """One decision for each model and resolution."""
    found = {(d.model, d.resolution_px): d for d in bundle.space.decisions if d.payload == "signs"}
    assert found
    return list(found.values())


def test_frames_of_a_device_find_everything_ready(pair: tuple[Bundle, Workload], ready: Any) -> None:
    bundle, workload = pair
    compute, (first, *others) = LocalCompute(bundle, workload), of_signs(bundle)
    compute.warm_up([first])
    ready()
    rng = np.random.default_rng(0)
    segments = Segments(bundle, workload)
    for decision in (first, *others):
        stream = steady_stream(bundle, decision)
        assert stream is not None
        for _ in range(3):
            segments.head(rng.integers(0, 256, bundle.frame_shape, np.uint8), decision, encode_as=stream.encode)


def test_requests_find_everything_ready_though_the_warm_up_has_not_begun(
    pair: tuple[Bundle, Workload], ready: Any
) -> None:
    bundle, workload = pair
    segments = Segments(bundle, workload)
    segments.prepare_codecs()
    ready()
    for decision in of_signs(bundle):
        shape = bundle.payload_shape(decision.model, decision.resolution_px, decision.partition_point)
        for array in (np.zeros(shape, np.float32), np.random.default_rng(0).normal(size=shape).astype(np.float32)):
            segments.tail(encode_alone(bundle, decision, array), decision)
    warm_up = WarmUp(segments)  # runs no encoder of pixels: devices do that
    while warm_up.step():
        pass


def test_only_codecs_of_the_bundle_are_prepared(ready: Any) -> None:
    bundle, workload = open_pair("garments", None)
    ready()
    Segments(bundle, workload).prepare_codecs()
    with pytest.raises(AssertionError, match="late"):
        get_codec("signs").prepare()
    with pytest.raises(AssertionError, match="late"):
        Campus().resize(np.zeros((576, 768, 3), np.uint8), 512)
