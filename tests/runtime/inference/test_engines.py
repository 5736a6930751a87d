"""Segments, warm-up and profiler know an engine by its contract only."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from controller.records import NO_PAYLOAD
from runtime.bundles.bundle import SHIPPED_DIR, Bundle, open_bundle
from runtime.bundles.manifest import MANIFEST_FILE
from runtime.inference.engines import ENGINES
from runtime.inference.engines.base import Log
from runtime.inference.engines.torch_engine import TorchEngine, TorchModel
from runtime.inference.segments import Segments
from runtime.models.layers import Layer
from runtime.profiling.layer_parts import part_keys, parts_of
from runtime.workloads.base import Workload
from runtime.workloads.registry import get_workload
from runtime.workloads.types import Image


@dataclass(frozen=True)
class Sealed:
    """What only the engine may open: it is no array and no tensor."""

    content: Any


class SealedModel:
    def __init__(self, model: TorchModel) -> None:
        self._model = model

    def input_of_batch(self, images: Sequence[Image]) -> Sealed:
        return Sealed(self._model.input_of_batch(images))

    def run_stage(self, z: Sealed, stage: int) -> Sealed:
        return Sealed(self._model.run_stage(z.content, stage))

    def run_exit(self, z: Sealed, exit_branch: int) -> Sealed:
        return Sealed(self._model.run_exit(z.content, exit_branch))

    def record_stage(self, z: Sealed, stage: int) -> tuple[Sealed, list[Layer]]:
        output, layers = self._model.record_stage(z.content, stage)
        return Sealed(output), layers

    def record_exit(self, z: Sealed, exit_branch: int) -> list[Layer]:
        return self._model.record_exit(z.content, exit_branch)


class SealedEngine:
    """PyTorch behind sealed values."""

    version = "sealed"
    clock = staticmethod(time.thread_time)

    def __init__(self, bundle: Bundle, workload: Workload, log: Log) -> None:
        self._engine = TorchEngine(bundle, workload, log)

    def why_not(self, model: str) -> str:
        return "" if model == "mobilenet" else "has no seal"

    def use_threads(self, count: int) -> None:
        self._engine.use_threads(count)

    def load(self, model: str) -> SealedModel:
        return SealedModel(self._engine.load(model))

    def computing(self) -> AbstractContextManager[Any]:
        return self._engine.computing()

    def from_arrays(self, tensors: Any) -> Sealed:
        return Sealed(self._engine.from_arrays(tensors))

    def to_array(self, z: Sealed) -> Any:
        return self._engine.to_array(z.content)


@pytest.fixture
def sealed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Segments:
    """The shipped garments models, one of which another engine runs."""
    document = json.loads((SHIPPED_DIR / "garments" / MANIFEST_FILE).read_text())
    for model in document["models"]:
        if model["name"] == "mobilenet":
            model["engine"] = "sealed"
    for path in (SHIPPED_DIR / "garments").glob("*.safetensors"):
        (tmp_path / path.name).symlink_to(path)
    (tmp_path / MANIFEST_FILE).write_text(json.dumps(document))
    monkeypatch.setitem(ENGINES, "sealed", SealedEngine)
    return Segments(Bundle(tmp_path), get_workload("garments"))


def test_a_model_gives_the_same_outputs_whichever_engine_runs_it(sealed: Segments) -> None:
    plain = Segments(open_bundle("garments"), sealed.workload)
    image = np.random.default_rng(0).integers(0, 256, (28, 28), dtype=np.uint8)
    decisions = [d for d in sealed.bundle.space.decisions if d.model == "mobilenet" and d.resolution_px == 14]
    assert {d.payload for d in decisions} >= {NO_PAYLOAD, "raw", "u8"}
    for decision in decisions:
        np.testing.assert_array_equal(sealed.whole(image, decision), plain.whole(image, decision))
        assert sealed.output_shape(decision) == plain.output_shape(decision) == (1, 10)
    assert len(list(sealed.passes("mobilenet", 14))) == len(sealed.bundle.info("mobilenet").stages)


def test_a_bundle_may_mix_engines_and_each_decision_is_profiled_in_parts(sealed: Segments) -> None:
    assert sorted(engine.version for engine in sealed.engines) == sorted(("sealed", TorchEngine.version))
    parts = parts_of(sealed, np.zeros((28, 28), np.uint8))
    for decision in sealed.bundle.space.decisions:
        for side in ("device", "mec") if decision.payload != NO_PAYLOAD else ("device",):
            assert set(part_keys(sealed, decision, side)) <= set(parts)
    assert {key[1] for key in parts if key[0] == "input"} == set(sealed.bundle.model_names)
    assert all(part.layers for key, part in parts.items() if key[0] in ("stage", "exit"))


def test_segments_and_profiler_do_not_import_an_engine_before_a_bundle_needs_it() -> None:
    command = "import sys, runtime.inference.segments, runtime.profiling.measure; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", command], check=False).returncode == 0
