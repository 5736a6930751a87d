"""A stage that OpenVINO computes: the graph of a trained stage, compiled for each shape that arrives.

It takes and gives tensors in channels-last order, which OpenVINO reads and writes in place.
"""

from __future__ import annotations

import sys
import tempfile
import warnings
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from controller.errors import FailureError, UsageError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

#: Compiled shapes of a stage are kept up to this number: one per resolution, and batches while a bundle is measured.
_KEPT_SHAPES = 12
INSTALL = "pip install '.[openvino]'"


@cache
def openvino() -> Any:
    """The library, without its telemetry; UsageError where it is missing.

    OpenVINO and NNCF report their use to their makers if the package openvino-telemetry can be imported. Without it
    they run on, so it is hidden from them.
    """
    if "openvino" not in sys.modules:
        sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]
    try:
        import openvino
    except ImportError:
        raise UsageError(f"this model needs OpenVINO, as does the engine openvino; install it with {INSTALL}") from None
    return openvino


def compile_options() -> dict[Any, Any]:
    """As many threads as PyTorch may use in this process; what is not in 8 bits is float32, also where bfloat16 is
    faster.

    Threads are not bound to cores: on a busy machine they would wait there, 2 ms per stage instead of 0.3.
    """
    ov = openvino()
    return {
        ov.properties.inference_num_threads(): torch.get_num_threads(),
        ov.properties.hint.inference_precision(): ov.Type.f32,
        ov.properties.hint.performance_mode(): ov.properties.hint.PerformanceMode.LATENCY,
        ov.properties.hint.enable_cpu_pinning(): False,
    }


@dataclass(frozen=True)
class StageGraph:
    """OpenVINO's two files of one stage, in memory. Input and output are float32 (batch, h, w, channels)."""

    xml: bytes
    weights: bytes


def graph_of(stage: nn.Module, example: Tensor) -> Any:
    """OpenVINO's graph of a stage, of any size of input (batch, channels, h, w), in channels-last order."""
    ov = openvino()
    from openvino.preprocess import PrePostProcessor

    example = example.contiguous()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of tracing: sizes that become constants are made variable again below
        # OpenVINO would trace it with a check that imports PyTorch's test suite first, which takes seconds.
        traced = torch.jit.trace(stage, example, check_trace=False)  # type: ignore[no-untyped-call]
        graph = ov.convert_model(traced, example_input=example)
    graph.reshape(ov.PartialShape([-1, example.shape[1], -1, -1]))
    processor = PrePostProcessor(graph)
    for side in (processor.input(), processor.output()):
        side.tensor().set_layout(ov.Layout("NHWC"))
        side.model().set_layout(ov.Layout("NCHW"))
    return processor.build()


def serialised(graph: Any) -> StageGraph:
    """The two files of a graph, in memory."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "stage.xml"
        openvino().serialize(graph, path)
        return StageGraph(path.read_bytes(), path.with_suffix(".bin").read_bytes())


class GraphStage(nn.Module):
    """Owns one graph and what was compiled from it. It has no parameters that PyTorch knows."""

    cpu_only = True

    def __init__(self, graph: StageGraph, name: str = "stage", bits: str = "int8") -> None:
        """``bits``: of its arithmetic, for the profile."""
        super().__init__()
        self._graph, self._name, self.bits = graph, name, bits
        self._requests: dict[tuple[int, ...], Any] = {}

    def forward(self, x: Tensor) -> Tensor:
        array = x.permute(0, 2, 3, 1).numpy()
        request = self._request(array.shape)
        # The short way in and out: OpenVINO's own conversions take as long as a small stage. The output is copied,
        # because another frame may pass this stage before the next stage reads it.
        request.set_input_tensor(openvino().Tensor(array, shared_memory=True))
        request.infer()
        found: NDArray[np.float32] = request.get_output_tensor().data.copy()
        return torch.from_numpy(found).permute(0, 3, 1, 2)

    def _request(self, shape: tuple[int, ...]) -> Any:
        if shape not in self._requests:
            if len(self._requests) == _KEPT_SHAPES:
                self._requests.pop(next(iter(self._requests)))
            self._requests[shape] = self._compiled(shape).create_infer_request()
        return self._requests[shape]

    def _compiled(self, shape: tuple[int, ...]) -> Any:
        core = openvino().Core()
        try:
            graph = core.read_model(self._graph.xml, self._graph.weights)
            graph.reshape(list(shape))
            return core.compile_model(graph, "CPU", compile_options())
        except RuntimeError as error:
            reason = " ".join(str(error).split())[:200]
            raise FailureError(f"OpenVINO cannot run {self._name} on an input of {shape}: {reason}") from None
