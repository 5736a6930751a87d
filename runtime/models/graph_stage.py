"""A stage that OpenVINO computes: the graph of a trained stage in 8 bits, compiled for each shape that arrives.

It takes and gives tensors in channels-last order, which OpenVINO reads and writes in place.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from functools import cache
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
        raise UsageError(f"a model in 8 bits needs OpenVINO; install it with {INSTALL}") from None
    return openvino


@dataclass(frozen=True)
class StageGraph:
    """OpenVINO's two files of one stage, in memory. Input and output are float32 (batch, h, w, channels)."""

    xml: bytes
    weights: bytes


class GraphStage(nn.Module):
    """Owns one graph and what was compiled from it. It has no parameters that PyTorch knows."""

    def __init__(self, graph: StageGraph, name: str = "stage") -> None:
        super().__init__()
        self._graph, self._name = graph, name
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
        """One thread, as everywhere in mecpilot; what is not in 8 bits is float32, also where bfloat16 is faster.

        The thread is not bound to a core: on a busy machine it would wait there, 2 ms per stage instead of 0.3.
        """
        ov = openvino()
        core = ov.Core()
        options = {
            ov.properties.inference_num_threads(): 1,
            ov.properties.hint.inference_precision(): ov.Type.f32,
            ov.properties.hint.performance_mode(): ov.properties.hint.PerformanceMode.LATENCY,
            ov.properties.hint.enable_cpu_pinning(): False,
        }
        try:
            graph = core.read_model(self._graph.xml, self._graph.weights)
            graph.reshape(list(shape))
            return core.compile_model(graph, "CPU", options)
        except RuntimeError as error:
            reason = " ".join(str(error).split())[:200]
            raise FailureError(f"OpenVINO cannot run {self._name} on an input of {shape}: {reason}") from None
