"""The shipped campus bundle: it repeats what it recorded, and its figures are those that the project promises."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from controller.records import NO_PAYLOAD, Decision
from runtime.bundles.bundle import Bundle, open_bundle
from runtime.bundles.manifest import LOSSLESS
from runtime.bundles.recorded import Recorded
from runtime.codecs import TENSOR, get_codec
from runtime.inference.segments import Segments
from runtime.inference.streams import sender_of
from runtime.workloads.campus.workload import Campus

BYTES_LIMIT = 10_000_000  # of all weights
SHARE_OF_IMAGE_BYTES = 0.4  # what a split payload may need of the smallest image that is as good


@pytest.fixture(scope="module")
def bundle() -> Bundle:
    return open_bundle("campus")


def test_weights_are_small(bundle: Bundle) -> None:
    assert sum(model.file.size_bytes for model in bundle.manifest.models) < BYTES_LIMIT


def test_detectors_have_three_exits_and_split_models_one_and_the_scores_span_what_is_promised(bundle: Bundle) -> None:
    exits = {model.name: len(model.exits) for model in bundle.manifest.models}
    assert exits == {"medium": 3, "small": 3, "nano": 3, "split24": 1, "split8": 1}
    exact = [v.accuracy["validation"] for v in bundle.manifest.variants if v.codec == LOSSLESS]
    assert max(exact) > 0.93
    assert min(exact) > 0.60


def test_at_equal_score_a_split_payload_is_far_smaller_than_any_offered_image(bundle: Bundle) -> None:
    """Validation scores of all variants, and the mean bytes that each payload takes."""
    offers: dict[bool, list[tuple[float, float]]] = {True: [], False: []}
    for decision in bundle.space.decisions:
        if decision.payload != NO_PAYLOAD:
            score = bundle.manifest.variants[bundle.variant(decision)].accuracy["validation"]
            offers[get_codec(decision.payload).kind == TENSOR].append((score, bundle.payload(decision).mean_bytes))
    score, image_bytes = max(offers[False], key=lambda offer: (round(offer[0], 2), -offer[1]))
    split_bytes = min(size for reached, size in offers[True] if reached >= score - 0.01)
    assert split_bytes < SHARE_OF_IMAGE_BYTES * image_bytes


@pytest.mark.timeout(200)
@pytest.mark.parametrize(
    ("model", "cut", "payload"),
    [
        *((model, "exit", NO_PAYLOAD) for model in ("medium", "small", "nano", "split24", "split8")),
        ("nano", 0, "jpeg30"),
        ("nano", 1, "u1"),
        ("split24", 1, "signs"),
        ("split8", 1, "signs"),
    ],
)
def test_what_runs_scores_what_was_recorded(bundle: Bundle, model: str, cut: int | str, payload: str) -> None:
    """Payloads that may refer to earlier ones stand alone here."""
    torch.set_num_threads(1)
    workload = Campus()
    segments = Segments(bundle, workload)
    after = bundle.info(model).exit_after[0]
    decision = Decision(model, 384, 0, after if cut == "exit" else int(cut), payload)
    found = bundle.recorded("test")
    recorded = found.score[bundle.variant(decision)]
    for index in (0, 100, 200):
        image, truth = workload.sample(index)
        if payload != NO_PAYLOAD:
            sent = len(segments.head(image, decision).payload)
            assert sent == pytest.approx(alone_bytes(found, decision)[index], rel=0.02)
        prediction = segments.answer(segments.whole(image, decision), decision)
        # Convolutions may differ in the last bits elsewhere, and a candidate at the threshold then falls.
        assert workload.score(prediction, truth) == pytest.approx(recorded[index], abs=0.2)
        assert all(len(box) == 5 for box in prediction)
    assert np.mean(recorded) > 0.7


def alone_bytes(recorded: Recorded, decision: Decision) -> NDArray[np.int32]:
    """(samples,) bytes of the payloads of a decision that stand alone."""
    assert recorded.payload_bytes is not None
    assert recorded.aged_bytes is not None
    key = decision.payload_key
    aged = recorded.aged_bytes.get(key)
    return recorded.payload_bytes[key] if aged is None else aged[0]


@pytest.mark.parametrize(("model", "cut", "payload"), [("nano", 0, "h264q40"), ("split24", 1, "signs")])
def test_payloads_of_a_stream_take_the_bytes_that_were_recorded(
    bundle: Bundle, model: str, cut: int, payload: str
) -> None:
    """Each payload refers to the one before. Where a stream began is forgotten after a few frames."""
    torch.set_num_threads(1)
    workload = Campus()
    segments = Segments(bundle, workload)
    decision = Decision(model, 384, 0, cut, payload)
    sender = sender_of(bundle, decision)
    assert sender is not None
    sent = []
    for number, index in enumerate(range(90, 120), start=1):
        encoded = sender.encode(segments.head_array(workload.sample(index)[0], decision), number)
        sender.sent(number)
        sender.answered(number)
        sent.append(len(encoded.payload))
    recorded = bundle.recorded("test").payload_bytes
    assert recorded is not None
    assert sum(sent[10:]) == pytest.approx(recorded[decision.payload_key][100:120].sum(), rel=0.1)
