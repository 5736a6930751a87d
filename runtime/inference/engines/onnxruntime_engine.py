"""The ONNX Runtime engine: the stages of foreign models. Exit heads, and stages that were made here, run in PyTorch."""

from __future__ import annotations

from runtime.bundles.bundle import Bundle
from runtime.inference.engines.base import Log, ignore
from runtime.inference.engines.torch_engine import TorchEngine
from runtime.models.foreign_stage import has_foreign_stages
from runtime.onnx_graphs.library import onnxruntime_library
from runtime.workloads.base import Workload


class OnnxRuntimeEngine(TorchEngine):
    """Not offered for mecpilot's own models, which have no ONNX graph. UsageError where the library is missing."""

    name = "onnxruntime"
    runner = "onnxruntime"

    def __init__(self, bundle: Bundle, workload: Workload, log: Log = ignore) -> None:
        super().__init__(bundle, workload, log)
        self.version = f"onnxruntime {onnxruntime_library().__version__}"

    def why_not(self, model: str) -> str:
        if why := super().why_not(model):
            return why
        return "" if has_foreign_stages(self._bundle.model(model)) else "has no ONNX graph: it is no adopted model"
