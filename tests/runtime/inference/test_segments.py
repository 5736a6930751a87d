"""Segments: what device and MEC compute apart equals the undivided model."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from controller.errors import RemoteProtocolError
from controller.records import Decision
from controller.space import NO_PAYLOAD
from runtime.bundles.bundle import Bundle, open_bundle
from runtime.inference.segments import Segments
from runtime.workloads.registry import get_workload
from runtime.workloads.types import Image


@pytest.fixture(scope="module")
def segments() -> Segments:
    torch.set_num_threads(1)
    return Segments(open_bundle("garments"), get_workload("garments"))


@pytest.fixture(scope="module")
def image(segments: Segments) -> Image:
    return segments.workload.sample(17)[0]


@torch.inference_mode()
def undivided(segments: Segments, image: Image, decision: Decision) -> np.ndarray:
    small = segments.workload.resize(image, decision.resolution_px)
    x = segments.workload.to_input(np.array(small)[None])
    return segments.bundle.model(decision.model).whole(x, decision.exit_branch).numpy()


def is_lossless(decision: Decision) -> bool:
    return decision.payload in (NO_PAYLOAD, "raw", "png")


def test_every_lossless_decision_gives_the_outputs_of_the_undivided_model(segments: Segments, image: Image) -> None:
    decisions = [d for d in segments.bundle.space.decisions if is_lossless(d)]
    assert len(decisions) > 50
    for decision in decisions:
        np.testing.assert_array_equal(
            segments.whole(image, decision), undivided(segments, image, decision), err_msg=str(decision)
        )


def test_every_quantised_decision_comes_close(segments: Segments, image: Image) -> None:
    for decision in segments.bundle.space.decisions:
        if decision.payload == "u8":
            exact = undivided(segments, image, decision)
            got = segments.whole(image, decision)
            assert np.abs(got - exact).max() < 0.1 * max(1.0, np.abs(exact).max()), decision


def one(bundle: Bundle, **wanted: object) -> Decision:
    return next(d for d in bundle.space.decisions if all(getattr(d, field) == value for field, value in wanted.items()))


def test_a_device_only_head_has_outputs_and_no_payload_and_an_offloaded_one_the_opposite(
    segments: Segments, image: Image
) -> None:
    alone = segments.head(image, one(segments.bundle, payload=NO_PAYLOAD))
    assert alone.outputs is not None
    assert alone.payload == b""
    sent = segments.head(image, one(segments.bundle, payload="u8"))
    assert sent.outputs is None
    assert len(sent.payload) > 0


def test_a_frame_is_left_as_it_was(segments: Segments, image: Image) -> None:
    before = image.copy()
    segments.whole(image, one(segments.bundle, payload=NO_PAYLOAD, resolution_px=28))
    np.testing.assert_array_equal(image, before)


def test_the_pause_comes_before_every_stage_and_the_exit_head(segments: Segments, image: Image) -> None:
    pauses: list[int] = []
    cut = one(segments.bundle, model="resnet", partition_point=3, payload="u8")
    segments.head(image, cut, lambda: pauses.append(1))
    assert len(pauses) == 3
    alone = one(segments.bundle, model="resnet", payload=NO_PAYLOAD, exit_branch=3)
    segments.head(image, alone, lambda: pauses.append(1))
    assert len(pauses) == 3 + alone.partition_point + 1


def test_another_head_may_run_in_a_pause_without_changing_the_answer(segments: Segments, image: Image) -> None:
    decision = one(segments.bundle, model="resnet", payload=NO_PAYLOAD, exit_branch=3)
    fallback = one(segments.bundle, model="mobilenet", payload=NO_PAYLOAD, exit_branch=0)
    other, _ = segments.workload.sample(18)
    found: list[np.ndarray] = []

    def preempt() -> None:
        outputs = segments.head(other, fallback).outputs
        assert outputs is not None
        found.append(outputs)

    interrupted = segments.head(image, decision, preempt).outputs
    np.testing.assert_array_equal(interrupted, segments.head(image, decision).outputs)
    np.testing.assert_array_equal(found[0], segments.head(other, fallback).outputs)


def test_an_answer_is_the_class_with_the_largest_output(segments: Segments, image: Image) -> None:
    decision = one(segments.bundle, payload=NO_PAYLOAD)
    outputs = segments.whole(image, decision)
    assert segments.answer(outputs, decision) == int(outputs.argmax())


@pytest.mark.parametrize("codec", ["raw", "png", "u8", "u4"])
def test_a_payload_that_is_not_what_the_decision_says_is_the_peers_fault(
    segments: Segments, image: Image, codec: str
) -> None:
    decision = one(segments.bundle, payload=codec)
    payload = segments.head(image, decision).payload
    for bad in (b"", payload[:-1], b"\x07" * len(payload)):
        if codec == "raw" and len(bad) == len(payload):
            continue  # any pixels are a legal raw image
        with pytest.raises(RemoteProtocolError):
            segments.tail(bad, decision)
