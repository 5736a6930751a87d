"""Which engine runs each model: the wanted one, the fastest, or the model's own."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from importlib.metadata import EntryPoint

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from controller.errors import FailureError, UsageError
from controller.records import NO_PAYLOAD
from runtime.bundles.bundle import Bundle, open_bundle
from runtime.inference import engines
from runtime.inference.engines import Engines, cuda_engine, fastest, open_engines
from runtime.inference.engines.base import Log
from runtime.inference.engines.cuda_engine import CPU, CudaModel
from runtime.inference.engines.torch_engine import TorchEngine
from runtime.inference.segments import Segments
from runtime.plug_ins import PlugIns
from runtime.workloads.base import Workload
from runtime.workloads.registry import get_workload

IMAGE = np.random.default_rng(0).integers(0, 256, (28, 28), dtype=np.uint8)


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def bundle() -> Bundle:
    return open_bundle("garments")


@pytest.fixture
def workload() -> Workload:
    return get_workload("garments")


def outputs_of(segments: Segments) -> dict[str, NDArray[np.float32]]:
    """The last exit of the smallest model at each resolution, on the device."""
    alone = (d for d in segments.bundle.space.decisions if d.model == "mobilenet" and d.payload == NO_PAYLOAD)
    return {f"{d.resolution_px} px": segments.whole(IMAGE, d) for d in alone}


def test_models_run_in_the_engine_that_recorded_their_answers(bundle: Bundle, workload: Workload) -> None:
    segments = Segments(bundle, workload)
    assert {type(segments.engine(model)) for model in bundle.model_names} == {TorchEngine}
    with pytest.raises(UsageError, match="nothing"):
        segments.engine("nothing")


def test_models_made_here_run_in_openvino_with_the_same_answers(bundle: Bundle, workload: Workload) -> None:
    found, expected = (outputs_of(Segments(bundle, workload, engine)) for engine in ("openvino", None))
    assert len(found) == len(bundle.manifest.resolutions_px)
    for place, outputs in found.items():
        assert fastest.difference_frac(outputs, expected[place]) < fastest.TOLERANCE_FRAC


def test_onnx_runtime_is_not_offered_for_models_made_here(bundle: Bundle, workload: Workload) -> None:
    with pytest.raises(UsageError, match=r"engine 'onnxruntime' runs no model of this bundle: .* no adopted model"):
        Segments(bundle, workload, "onnxruntime")


def test_an_unknown_engine_is_refused_with_the_known_ones(bundle: Bundle, workload: Workload) -> None:
    with pytest.raises(UsageError, match="got the engine 'tensorflow'; expected one of: auto, torch, onnxruntime"):
        Segments(bundle, workload, "tensorflow")


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_without_a_gpu_models_run_in_their_own_engines_and_one_line_says_so(bundle: Bundle, workload: Workload) -> None:
    lines: list[str] = []
    segments = Segments(bundle, workload, "cuda", lines.append)
    assert {type(segments.engine(model)) for model in bundle.model_names} == {TorchEngine}
    (line,) = lines
    assert "finds no GPU here" in line
    assert line.endswith("the models run on the CPU, in their own engines")


class WrongModel:
    def __init__(self, model: object) -> None:
        self._model = model

    def __getattr__(self, name: str) -> object:
        return getattr(self._model, name)

    def run_stage(self, z: torch.Tensor, stage: int) -> torch.Tensor:
        return self._model.run_stage(z, stage) * 1.01  # type: ignore[attr-defined]


class WrongEngine(TorchEngine):
    def load(self, model: str) -> WrongModel:  # type: ignore[override]
        return WrongModel(super().load(model))


def test_auto_takes_an_engine_that_agrees_and_says_what_it_measured(
    bundle: Bundle, workload: Workload, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fastest, "BUDGET_S", 0.05)
    known = {"torch": TorchEngine, "same": TorchEngine, "wrong": WrongEngine}
    monkeypatch.setattr(engines, "ENGINES", known)
    monkeypatch.setattr(fastest, "ENGINES", known)
    lines: list[str] = []
    found = open_engines(bundle, workload, "auto", lines.append)
    assert found.keys() == set(bundle.model_names)
    (line,) = lines
    assert line.startswith("engine auto: ")
    assert all(f"{model} " in line for model in bundle.model_names)
    assert line.count("same") == len(bundle.model_names)
    assert "wrong" not in line


@pytest.mark.parametrize(
    ("measured", "name"),
    [
        ({"torch": 1.0}, "torch"),
        ({"torch": 1.0, "openvino": 0.95}, "torch"),  # not worth it
        ({"torch": 1.0, "openvino": 0.5}, "openvino"),
        ({"torch": 1.0, "openvino": 0.52, "cuda": 0.5}, "openvino"),
    ],
)
def test_the_own_engine_stays_unless_another_one_is_clearly_faster(measured: dict[str, float], name: str) -> None:
    assert fastest.choice(measured) == name


# Engines of installed packages -------------------------------------------------------------------------------


def installed(monkeypatch: pytest.MonkeyPatch, factory: str) -> None:
    entry = EntryPoint("mine", f"{__name__}:{factory}", engines.GROUP)
    monkeypatch.setattr(EntryPoint, "load", lambda _: globals()[factory])
    monkeypatch.setattr(engines, "_plug_ins", PlugIns(engines.GROUP, "engine", lambda: [entry]))


def broken(bundle: Bundle, workload: Workload, log: Log) -> TorchEngine:
    raise ImportError("no\nlibmine")


def no_engine(bundle: Bundle, workload: Workload, log: Log) -> str:
    return "mine"


def test_an_installed_engine_runs_models_by_its_name(
    bundle: Bundle, workload: Workload, monkeypatch: pytest.MonkeyPatch
) -> None:
    installed(monkeypatch, "TorchEngine")
    found, expected = (outputs_of(Segments(bundle, workload, engine)) for engine in ("mine", None))
    for place, outputs in found.items():
        np.testing.assert_array_equal(outputs, expected[place])


def test_an_installed_engine_that_fails_is_one_line(
    bundle: Bundle, workload: Workload, monkeypatch: pytest.MonkeyPatch
) -> None:
    installed(monkeypatch, "broken")
    with pytest.raises(FailureError, match=r"the plug-in of engine 'mine' .* fails: ImportError: no libmine"):
        Segments(bundle, workload, "mine")


def test_what_is_no_engine_is_one_line(bundle: Bundle, workload: Workload, monkeypatch: pytest.MonkeyPatch) -> None:
    installed(monkeypatch, "no_engine")
    with pytest.raises(FailureError, match=r"'mine' .* gave str; expected an engine, which also has version, clock, "):
        Segments(bundle, workload, "mine")


# The GPU -----------------------------------------------------------------------------------------------------


def test_a_gpu_whose_memory_runs_out_hands_over_to_the_cpu(bundle: Bundle, workload: Workload) -> None:
    lines: list[str] = []
    plain = TorchEngine(bundle, workload).load("mobilenet")
    model = CudaModel(copy.deepcopy(bundle.model("mobilenet")), workload, CPU, "mobilenet", lines.append)
    compute, failures = model._steps[1][0], [torch.OutOfMemoryError()]

    def once(z: torch.Tensor) -> torch.Tensor:
        if failures:
            raise failures.pop()
        return compute(z)

    model._steps[1][0] = once
    with torch.inference_mode():
        z, expected = model.input_of_batch([IMAGE]), plain.input_of_batch([IMAGE])
        for stage in range(3):
            z, expected = model.run_stage(z, stage), plain.run_stage(expected, stage)
    assert torch.equal(z, expected)
    assert lines == [
        "engine cuda: the GPU is out of memory; model mobilenet runs on the CPU, and tries the GPU again in 60 s"
    ]


def test_a_model_tries_a_gpu_again_and_answers_on_the_cpu_while_its_memory_is_full(
    bundle: Bundle, workload: Workload, monkeypatch: pytest.MonkeyPatch
) -> None:
    tries: list[torch.device] = []

    def move(place: torch.device) -> None:
        tries.append(place)
        if place != CPU:
            raise torch.OutOfMemoryError

    monkeypatch.setattr(cuda_engine, "_AWAY_S", 0.0)
    model = CudaModel(copy.deepcopy(bundle.model("mobilenet")), workload, CPU, "mobilenet", lambda _: None)
    plain, model._gpu = TorchEngine(bundle, workload).load("mobilenet"), torch.device("cuda")
    monkeypatch.setattr(model, "_move", move)
    with torch.inference_mode():
        z = plain.input_of_batch([IMAGE])
        for _ in range(2):
            assert torch.equal(model.run_stage(z, 0), plain.run_stage(z, 0))
    assert tries == [torch.device("cuda"), CPU] * 2


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("name", ["garments", "campus"])
def test_a_gpu_gives_the_answers_of_the_cpu_alone_and_in_batches(name: str) -> None:
    bundle, workload = open_bundle(name), get_workload(name)
    image = np.random.default_rng(0).integers(0, 256, bundle.frame_shape, dtype=np.uint8)
    cpu, gpu = TorchEngine(bundle, workload), Engines(bundle, workload).named("cuda")
    for model in bundle.model_names:
        on_cpu, on_gpu = cpu.load(model), gpu.load(model)
        px = max(bundle.manifest.resolutions_of(bundle.info(model)))
        images = [workload.resize(image, px), 255 - workload.resize(image, px)]
        with torch.inference_mode():
            z, found = on_cpu.input_of_batch(images), on_gpu.input_of_batch(images)
            for stage in range(len(bundle.info(model).stages)):
                z, found = on_cpu.run_stage(z, stage), on_gpu.run_stage(found, stage)
                found = gpu.from_arrays(list(gpu.to_array(found)))  # as if it had crossed the uplink
                assert fastest.difference_frac(gpu.to_array(found), cpu.to_array(z)) < fastest.TOLERANCE_FRAC
            assert gpu.to_array(on_gpu.run_exit(found, len(bundle.info(model).exits) - 1)).shape[0] == 2
