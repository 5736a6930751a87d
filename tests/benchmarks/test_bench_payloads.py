"""The payload benchmark compares what it says: at equal score, the smallest of each kind."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from benchmarks.bench_payloads import comparison, draw, family_of, frontier, markdown, offers_table, smallest
from benchmarks.support import payload_offers
from benchmarks.support.payload_offers import Offer, live_offers, recorded_offers
from controller.errors import FailureError
from runtime.bundles.bundle import open_bundle
from runtime.codecs import encode
from runtime.workloads.registry import get_workload


def _offer(cut: int, codec: str, mean_bytes: float, score: float) -> Offer:
    scores = {"validation": score, "test": score - 0.02}
    return Offer("nano", 384, 0, cut, codec, mean_bytes, 1.0, 0, scores)


OFFERS = [
    _offer(0, "raw", 90_000, 0.93),
    _offer(0, "webp2", 3_000, 0.80),
    _offer(0, "jpeg10", 4_000, 0.895),
    _offer(0, "jpeg30", 9_000, 0.92),
    _offer(1, "u8", 12_000, 0.93),
    _offer(1, "u1", 400, 0.90),
    _offer(2, "u1", 500, 0.85),
]


def test_the_frontier_holds_what_nothing_beats_in_bytes_and_score() -> None:
    assert [offer.mean_bytes for offer in frontier(OFFERS, "validation")] == [400, 4_000 + 5_000, 12_000]


def test_the_whole_table_has_a_row_per_payload_and_a_column_per_exit() -> None:
    deeper = replace(OFFERS[4], exit_branch=2, score={"validation": 0.95, "test": 0.94})
    lines = markdown([*OFFERS, deeper], "campus", "plot.png").splitlines()
    assert "| px | cut | codec | bytes | bits/element | exit 0 | exit 2 |" in lines
    assert "| 384 | 1 | u8 | 12,000 | 1.000 | 0.910 | 0.940 |" in lines
    assert sum(line.startswith("| 384") for line in lines) == len(OFFERS)


def test_the_smallest_payload_that_reaches_a_score() -> None:
    found = smallest(OFFERS, "validation", 0.895)
    assert found is not None
    assert found.mean_bytes == 400
    assert smallest(OFFERS, "validation", 0.99) is None


def test_at_equal_score_the_tensor_may_be_worse_by_a_hundredth_and_lossless_images_do_not_count() -> None:
    rows = comparison(OFFERS, "validation")
    assert rows[0]["level"] == pytest.approx(0.92)
    assert (rows[0]["tensor"].codec, rows[0]["image"].codec) == ("u8", "jpeg30")
    equal = next(row for row in rows if row["level"] <= 0.9 + 1e-9)
    assert (equal["tensor"].codec, equal["image"].codec) == ("u1", "jpeg30")
    assert equal["ratio"] == pytest.approx(400 / 9_000)


def test_the_levels_are_those_of_the_split_that_is_asked_for() -> None:
    assert comparison(OFFERS, "test")[0]["level"] == pytest.approx(0.90)


def test_without_tensors_or_images_there_is_no_comparison() -> None:
    assert comparison(OFFERS[:4], "test") == []
    assert comparison(OFFERS[4:], "test") == []


def test_a_codecs_family_is_its_name_without_the_quality() -> None:
    assert [family_of(codec) for codec in ("jpeg75", "webp2", "png", "u1")] == ["jpeg", "webp", "png", "u1"]


def test_recorded_offers_are_the_payloads_of_the_bundle() -> None:
    bundle = open_bundle("garments")
    offers = recorded_offers(bundle)
    assert {offer.codec for offer in offers} == {*bundle.manifest.image_codecs, *bundle.manifest.tensor_codecs}
    raw = next(offer for offer in offers if offer.codec == "raw" and offer.resolution_px == 28)
    assert (raw.mean_bytes, raw.bits_per_element, raw.device_macs) == (784, 8.0, 0)
    exact = next(v for v in bundle.manifest.variants if (v.model, v.resolution_px, v.exit_branch) == (raw.model, 28, 0))
    assert raw.score == pytest.approx(exact.accuracy, abs=1e-4)


def test_a_quality_that_the_bundle_lacks_is_run_on_its_models(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    torch.set_num_threads(1)
    workload, bundle = get_workload("garments"), open_bundle("garments")
    try:
        frames = [workload.sample(index, "validation")[0] for index in (0, 4999)]
    except FailureError as error:
        pytest.skip(str(error))
    monkeypatch.setattr(payload_offers, "QUALITY_CODECS", ("webp90",))
    offers = live_offers(bundle, workload, 2)
    exits = sum(len(model.exit_after) for model in bundle.manifest.models)
    assert len(offers) == exits * len(bundle.manifest.resolutions_px)
    sizes = {offer.mean_bytes for offer in offers if offer.resolution_px == 28}
    assert sizes == {np.mean([len(encode("webp90", frame)) for frame in frames])}
    draw(offers, "test", "some", tmp_path / "plot.png")
    assert (tmp_path / "plot.png").stat().st_size > 5000
    assert offers_table(offers, "all").row_count == len(offers)
