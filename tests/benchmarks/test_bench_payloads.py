"""The payload benchmark compares what it says: at equal score, the smallest payload or message of each kind."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
import torch
from rich.console import Console

from benchmarks.bench_payloads import (
    SIZES,
    at_equal_score,
    draw,
    frontier,
    groups,
    level_table,
    markdown,
    ratios,
    smallest,
    verdict,
)
from benchmarks.support.kinds import DEVICE, H264, JPEG, LOSSLESS_IMAGE, PLAIN_SPLIT, SPLIT, WEBP, kind_of
from benchmarks.support.payload_offers import ALONE, Offer, measured_offers, recorded_offers
from controller.errors import FailureError
from controller.packets import wire_bytes
from controller.records import Decision
from runtime.bundles.bundle import open_bundle
from runtime.codecs import encode
from runtime.workloads.registry import get_workload

PAYLOAD, MESSAGE = SIZES["payload"], SIZES["whole message"]


def _offer(cut: int, codec: str, size: float, score: float, age: int = ALONE, exit_branch: int = 0) -> Offer:
    decision = Decision("nano", 384, exit_branch, cut, codec)
    return Offer(decision, age, size, wire_bytes(size), 1.0, score)


OFFERS = [
    _offer(0, "raw", 90_000, 0.93),
    _offer(0, "webp2", 3_000, 0.80),
    _offer(0, "jpeg10", 4_000, 0.925),
    _offer(0, "h264q45", 200, 0.935, age=1),
    _offer(0, "h264q45", 150, 0.935, age=3),
    _offer(1, "u8", 12_000, 0.93),
    _offer(1, "signs", 300, 0.94),
    _offer(1, "signs", 50, 0.94, age=1),
    _offer(1, "signs", 90, 0.94, age=3),
]


def test_the_kind_of_a_decision_is_what_crosses_the_uplink() -> None:
    wanted = {"raw": LOSSLESS_IMAGE, "webp2": WEBP, "jpeg10": JPEG, "h264q45": H264, "u8": PLAIN_SPLIT, "signs": SPLIT}
    assert {o.decision.payload: o.kind for o in OFFERS} == wanted
    assert kind_of(Decision("nano", 384, 0, 2, "none")) == DEVICE


def test_the_frontier_holds_what_nothing_beats_in_bytes_and_score() -> None:
    assert [offer.payload_bytes for offer in frontier(OFFERS, PAYLOAD)] == [50]
    assert [offer.payload_bytes for offer in frontier(OFFERS[:6], PAYLOAD)] == [150]


def test_the_smallest_offer_that_reaches_a_score() -> None:
    found = smallest(OFFERS[:4], 0.925, PAYLOAD)
    assert found is not None
    assert found.payload_bytes == 200
    assert smallest(OFFERS, 0.99, PAYLOAD) is None


def test_splits_are_compared_by_the_age_of_the_reference_with_a_video_codec_that_refers_to_the_frame_before() -> None:
    grouped = groups(OFFERS)
    assert list(grouped) == ["split, age 1", "split, age 3", PLAIN_SPLIT, H264, JPEG, WEBP]
    row = at_equal_score(grouped, PAYLOAD)[1]
    assert row["level"] == 0.93
    assert row[JPEG] is None
    assert ratios(row, PAYLOAD) == {"split, age 1": 50 / 200, "split, age 3": 90 / 200}
    whole = ratios(at_equal_score(grouped, MESSAGE)[1], MESSAGE)
    assert whole["split, age 1"] == pytest.approx(wire_bytes(50) / wire_bytes(200))


def test_without_a_video_codec_there_is_no_ratio_and_no_verdict() -> None:
    grouped = groups([o for o in OFFERS if o.kind != H264])
    assert ratios(at_equal_score(grouped, PAYLOAD)[0], PAYLOAD) == {}
    assert verdict(grouped, Console(file=io.StringIO())) == 1


def test_the_tables_show_levels_and_every_payload(tmp_path: Path) -> None:
    grouped = groups([*OFFERS, _offer(1, "u8", 12_000, 0.945, exit_branch=2)])
    table = level_table(grouped, "payload")
    lines = markdown([*OFFERS, _offer(1, "u8", 12_000, 0.945, exit_branch=2)], [table], "campus", "p.png").splitlines()
    assert "| 0.93 | 50 | 90 | 12,000 | 200 |  |  | 0.25 | 0.45 |" in lines
    assert "| px | cut | codec | age | payload | message | exit 0 | exit 2 |" in lines
    assert f"| 384 | 1 | u8 |  | 12,000 | {wire_bytes(12_000):,.0f} | 0.930 | 0.945 |" in lines
    draw(grouped, "some", tmp_path / "plot.png")
    assert (tmp_path / "plot.png").stat().st_size > 5000


def test_recorded_offers_are_the_payloads_of_the_bundle() -> None:
    bundle = open_bundle("garments")
    offers = recorded_offers(bundle)
    assert {o.decision.payload for o in offers} == {*bundle.manifest.image_codecs, *bundle.manifest.tensor_codecs}
    raw = next(o for o in offers if o.decision.payload == "raw" and o.decision.resolution_px == 28)
    assert (raw.payload_bytes, raw.message_bytes, raw.bits_per_element) == (784, wire_bytes(784), 8.0)
    exact = next(
        v for v in bundle.manifest.variants if (v.model, v.resolution_px, v.exit_branch) == (raw.decision.model, 28, 0)
    )
    assert raw.score == pytest.approx(exact.accuracy["test"], abs=1e-4)


def test_a_codec_that_the_bundle_lacks_is_run_on_its_models_and_a_video_codec_refers_to_the_frame_before() -> None:
    torch.set_num_threads(1)
    workload, bundle = get_workload("garments"), open_bundle("garments")
    try:
        frames = [workload.sample(index, "test")[0] for index in (0, 1)]
    except FailureError as error:
        pytest.skip(str(error))
    offers = measured_offers(bundle, workload, ("webp90",), 2)
    exits = sum(len(model.exit_after) for model in bundle.manifest.models)
    assert len(offers) == exits * len(bundle.manifest.resolutions_px)
    sizes = {(o.age, o.payload_bytes) for o in offers if o.decision.resolution_px == 28}
    assert sizes == {(ALONE, sum(len(encode("webp90", frame)) for frame in frames) / 2)}
