"""Two variants of one family in a bundle: neither has the family's name, and both are profiled and served."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
import torch
from support.live import run_device_here
from support.waiting import PATIENCE_S

import mecpilot
import runtime.cli.profile
from controller.errors import UsageError
from controller.records import Decision
from runtime.building.build import write_bundle
from runtime.building.measure import TrainedModel, measure_model
from runtime.building.payload_sizes import measure_images
from runtime.bundles.bundle import SHIPPED_DIR, Bundle
from runtime.bundles.manifest import MANIFEST_FILE, decode_manifest, encode_manifest
from runtime.bundles.weights import save_weights
from runtime.inference.segments import Segments
from runtime.testbed.processes import running_mec
from runtime.workloads.datasets import FashionMnist
from runtime.workloads.garments.workload import Garments
from runtime.workloads.registry import get_workload

FRAMES = 20


@pytest.fixture
def few_images(monkeypatch: pytest.MonkeyPatch) -> Garments:
    """The garments workload over few random images, so that no data has to be fetched."""
    rng = np.random.default_rng(0)

    def part(count: int) -> tuple[Any, Any]:
        return rng.integers(0, 256, (count, 28, 28), dtype=np.uint8), rng.integers(0, 10, count, dtype=np.uint8)

    data = FashionMnist(*part(100), *part(FRAMES))
    monkeypatch.setattr("runtime.workloads.garments.workload.load_fashion_mnist", lambda _: data)
    monkeypatch.setattr("runtime.workloads.garments.workload.VALIDATION_COUNT", 30)
    return Garments()


@pytest.fixture
def variants(few_images: Garments, tmp_path: Path) -> Bundle:
    torch.set_num_threads(1)
    measured = []
    for seed, name in enumerate(("small-a", "small-b")):
        torch.manual_seed(seed)
        model = few_images.build("mobilenet")
        save_weights(model, tmp_path / f"{name}.safetensors")
        trained = TrainedModel(name, "mobilenet", f"{name}.safetensors", model.exit_after, {})
        measured.append(measure_model(tmp_path, few_images, trained, max_samples=10))
    write_bundle(tmp_path, few_images, measured, measure_images(few_images, max_samples=10))
    return Bundle(tmp_path)


def test_variants_of_one_family_are_told_apart_by_name(
    variants: Bundle, few_images: Garments, capsys: pytest.CaptureFixture[str]
) -> None:
    assert {(info.name, info.family) for info in variants.manifest.models} == {
        ("small-a", "mobilenet"),
        ("small-b", "mobilenet"),
    }
    segments = Segments(variants, few_images)
    image = few_images.sample(0)[0]
    a, b = (segments.whole(image, Decision(name, 28, 3, 0, "raw")) for name in ("small-a", "small-b"))
    assert not np.array_equal(a, b)
    assert mecpilot.main(["models", "show", str(variants.directory), "--json", "-"]) == 0
    shown = json.loads(capsys.readouterr().out)["models"]
    facts = [tuple(model[field] for field in ("name", "family", "precision", "engine")) for model in shown]
    assert facts == [("small-a", "mobilenet", "float32", "torch"), ("small-b", "mobilenet", "float32", "torch")]
    assert mecpilot.main(["models", "show", str(variants.directory)]) == 0
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert ["small-b", "mobilenet", "float32", "torch"] in [line[:4] for line in lines]


@pytest.mark.slow
def test_variants_are_profiled_and_served(variants: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runtime.cli.profile, "QUICK_BUDGET_S", 0.5)
    monkeypatch.setattr("runtime.device.loop.CONNECT_WAIT_S", PATIENCE_S)
    bundle = ["--workload", "garments", "--bundle", str(variants.directory)]
    profile = tmp_path / "profile.json"
    assert mecpilot.main(["profile", "--quick", *bundle, "--out", str(profile)]) == 0
    with running_mec("garments", options=(*bundle, "--profile", str(profile))) as mec:
        for decision in (
            {"model": "small-b", "payload": "u8", "partition_point": 2},
            {"model": "small-a", "payload": "png"},
            {"model": "small-b", "payload": "none"},
        ):
            done = run_device_here(
                mec.endpoint,
                tmp_path / f"{decision['payload']}.jsonl",
                bundle=variants.directory,
                profile=profile,
                decision=decision,
                frames=FRAMES,
                fps=0,
                deadline_ms=10_000,
            )
            assert done.code == 0, done.err
            done.check_most("ok", FRAMES)
            assert all(decision.items() <= outcome["decision"].items() for outcome in done.outcomes)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"engine": "abacus"}, "model resnet needs engine 'abacus'; expected one of: torch"),
        ({"precision": "int2"}, "model resnet has precision 'int2'; engine 'torch' runs float32"),
    ],
)
def test_a_model_that_no_engine_can_run_is_named_before_the_first_frame(
    change: dict[str, str], reason: str, tmp_path: Path
) -> None:
    document = json.loads((SHIPPED_DIR / "garments" / MANIFEST_FILE).read_text())
    document["models"][0] |= change
    for path in (SHIPPED_DIR / "garments").glob("*.safetensors"):
        (tmp_path / path.name).symlink_to(path)
    (tmp_path / MANIFEST_FILE).write_text(json.dumps(document))
    with pytest.raises(UsageError, match=reason):
        Segments(Bundle(tmp_path), get_workload("garments"))


@pytest.mark.parametrize("name", ["garments", "campus"])
def test_default_precision_and_engine_are_left_out_so_that_digests_stay(name: str) -> None:
    data = (SHIPPED_DIR / name / MANIFEST_FILE).read_bytes()
    manifest = decode_manifest(data, name)
    assert encode_manifest(manifest) == data
    model = msgspec.structs.replace(manifest.models[0], precision="int8")
    changed = msgspec.structs.replace(manifest, models=(model, *manifest.models[1:]))
    assert b'"precision": "int8"' in encode_manifest(changed)
    assert decode_manifest(encode_manifest(changed), name) == changed
