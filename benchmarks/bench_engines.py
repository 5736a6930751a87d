"""Compares what could run the stages of a model in 8 or 16 bits: OpenVINO with NNCF, ONNX Runtime, PyTorch in bfloat16.

``python -m benchmarks.bench_engines [--workload campus --model medium --px 512]`` runs all stages of one model on
training frames, one thread, the libraries taking turns on each frame. It prints the time of each relative to PyTorch
in float32, and how far its outputs lie from PyTorch's. Libraries that are not installed are left out; ONNX Runtime
needs ``pip install onnxruntime onnx``.

``--auto`` compares instead what ``--engine auto`` takes, after its short measurement, with the fastest engine of a
longer one: of the named models of the workload, or of a foreign model as one piece (``--onnx FILE --px 320``).
"""

from __future__ import annotations

import argparse
import copy
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from rich import box
from rich.console import Console
from rich.table import Table
from torch import nn

from benchmarks.support.ending import exit_code
from controller.errors import MecpilotError
from runtime.bundles.bundle import open_pair
from runtime.compression.eight_bits import stage_graph
from runtime.inference.engines import Engines, fastest
from runtime.inference.runners import RUNNERS, open_runner
from runtime.models.graph_stage import GraphStage, openvino
from runtime.models.pieces import Piece
from runtime.models.stages import BranchyModel
from runtime.workloads.inputs import model_input

Run = Callable[[torch.Tensor], Any]


def with_openvino(stages: nn.Module, frames: list[torch.Tensor]) -> dict[str, Run]:
    """OpenVINO in float32 and in 8 bits."""
    graphs = {"OpenVINO float32": stage_graph(stages, frames, eight_bits=False)}
    graphs["OpenVINO int8"] = stage_graph(stages, frames)
    return {name: GraphStage(graph) for name, graph in graphs.items()}


def with_onnx_runtime(stages: nn.Module, frames: list[torch.Tensor], folder: Path) -> dict[str, Run]:
    """ONNX Runtime in float32 and in 8 bits (static, QDQ, per channel)."""
    from onnxruntime import quantization

    plain, quantised = folder / "plain.onnx", folder / "int8.onnx"
    torch.onnx.export(stages, (frames[0],), plain, input_names=["x"], dynamo=False)

    class Reader(quantization.CalibrationDataReader):  # type: ignore[misc]
        def __init__(self) -> None:
            self._left = iter(frames)

        def get_next(self) -> dict[str, NDArray[Any]] | None:
            frame = next(self._left, None)
            return None if frame is None else {"x": frame.contiguous().numpy()}

    options = {"per_channel": True, "reduce_range": True}  # 7 bits, as for OpenVINO: see `eight_bits`
    quantization.quantize_static(plain, quantised, Reader(), **options)
    return {"ONNX Runtime float32": _session(plain), "ONNX Runtime int8": _session(quantised)}


def _session(path: Path) -> Run:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    return lambda x: torch.from_numpy(session.run(None, {"x": x.contiguous().numpy()})[0])


@torch.inference_mode()
def timed(runs: dict[str, Run], frames: list[torch.Tensor], rounds: int) -> dict[str, NDArray[np.float64]]:
    """(rounds,) seconds of each, taking turns."""
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    for number in range(-3, rounds):  # the first three warm up
        for name, run in runs.items():
            start_s = time.perf_counter()
            run(frames[number % len(frames)])
            if number >= 0:
                seconds[name].append(time.perf_counter() - start_s)
    return {name: np.array(values) for name, values in seconds.items()}


def _all_stages(model: BranchyModel) -> nn.Module:
    return nn.Sequential(*model.stages).eval()


def run(options: argparse.Namespace) -> None:
    torch.set_num_threads(1)
    if options.auto:
        compare_auto(options)
        return
    bundle, work = open_pair(options.workload)
    model = bundle.model(options.model)
    px = options.px or max(work.resolutions_px)
    count = min(options.frames, work.sample_count("train"))
    images = [work.resize(work.sample(index, "train")[0], px)[None] for index in range(count)]
    frames = [model_input(work, model, image).contiguous(memory_format=torch.channels_last) for image in images]
    stages = _all_stages(model)
    short = copy.deepcopy(stages).bfloat16()
    runs: dict[str, Run] = {
        "PyTorch float32": lambda x: model.run_stages(x, 0, len(model.stages)),
        "PyTorch bfloat16": lambda x: short(x.bfloat16()).float(),
    }
    with tempfile.TemporaryDirectory() as folder:
        try:
            openvino()
            runs |= with_openvino(stages, frames)
        except MecpilotError as error:
            print(error, file=sys.stderr)
        try:
            runs |= with_onnx_runtime(stages, frames, Path(folder))
        except ImportError as error:
            print(error, file=sys.stderr)
        seconds = timed(runs, frames, options.rounds)
        with torch.inference_mode():
            outputs = {name: one(frames[0]) for name, one in runs.items()}
    _print(f"{options.workload} {options.model}, {px} px, all stages, one thread", seconds, outputs)


@dataclass(frozen=True)
class Taken:
    """What ``--engine auto`` takes of a model, and what a longer measurement says."""

    model: str
    name: str
    by_hand_s: dict[str, float]  # the lower quartile of many runs of each engine

    @property
    def over_best(self) -> float:
        """Time of what was taken over that of the fastest."""
        return self.by_hand_s[self.name] / min(self.by_hand_s.values())


def taken(model: str, runs: dict[str, fastest.Run], rounds: int) -> Taken:
    """Measured as ``--engine auto`` does, then by hand."""
    name = fastest.choice(fastest.timed(runs, fastest.BUDGET_S))
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(rounds):
        for one, call in runs.items():
            start_s = time.perf_counter()
            call()
            seconds[one].append(time.perf_counter() - start_s)
    return Taken(model, name, {one: quartile(np.array(values)) for one, values in seconds.items()})


def with_one_piece(file: Path, px: int) -> dict[str, fastest.Run]:
    """A foreign model at px x px as one piece, in every library."""
    import onnx

    proto = onnx.load(file)
    (given,) = proto.graph.input
    shape = (1, 3, px, px)
    for dimension, size in zip(given.type.tensor_type.shape.dim, shape, strict=True):
        dimension.dim_value = size
    outputs = tuple(value.name for value in proto.graph.output)
    piece = Piece(proto.SerializeToString(), (given.name,), (shape[1:],), outputs, (), 0)
    x = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    libraries = (
        "onnxruntime",
        *(name for name in RUNNERS if name != "onnxruntime"),
    )  # as if it had recorded the answers
    return {name: partial(open_runner(name, piece), [x]) for name in libraries}


def compare_auto(options: argparse.Namespace) -> None:
    if options.onnx:
        found = [taken(options.onnx.stem, with_one_piece(options.onnx, options.px or 320), options.rounds)]
    else:
        bundle, work = open_pair(options.workload)
        engines = Engines(bundle, work)
        models = options.model.split(",")
        found = [taken(model, fastest.runs_of(bundle, engines, model), options.rounds) for model in models]
    table = Table("model", "auto takes", title="--engine auto, one thread", box=box.MARKDOWN)
    for heading in ("over the best by hand", *(names := ("torch", "onnxruntime", "openvino", "cuda"))):
        table.add_column(heading, justify="right")
    for one in found:
        times = (f"{1e3 * one.by_hand_s[name]:.1f} ms" if name in one.by_hand_s else "" for name in names)
        table.add_row(one.model, one.name, f"{one.over_best:.2f}", *times)
    Console(width=120).print(table)


def quartile(seconds: NDArray[np.float64]) -> float:
    """The lower one: on a machine that does other work, the rest of the samples shows that work."""
    return float(np.percentile(seconds, 25))


def _print(title: str, seconds: dict[str, NDArray[np.float64]], outputs: dict[str, torch.Tensor]) -> None:
    table = Table("library", title=title, box=box.MARKDOWN)
    for heading in ("fastest ms", "time / PyTorch", "difference of outputs"):
        table.add_column(heading, justify="right")
    plain, exact = next(iter(seconds.values())), next(iter(outputs.values()))
    for name, values in seconds.items():
        difference = float((outputs[name] - exact).abs().mean() / exact.abs().mean())
        table.add_row(
            name, f"{1e3 * values.min():.2f}", f"{quartile(values) / quartile(plain):.2f}", f"{difference:.3f}"
        )
    Console(width=120).print(table)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--workload", default="campus")
    parser.add_argument("--model", default="medium", help="of --auto several, separated by commas")
    parser.add_argument("--auto", action="store_true", help="what --engine auto takes")
    parser.add_argument("--onnx", type=Path, help="of --auto: a foreign model")
    parser.add_argument("--px", type=int, help="default: the largest")
    parser.add_argument("--frames", type=int, default=32, help="training frames to calibrate and time on")
    parser.add_argument("--rounds", type=int, default=40)
    options = parser.parse_args()
    return exit_code("bench_engines", lambda: run(options))


if __name__ == "__main__":
    sys.exit(main())
