"""The OpenVINO engine: stages in 8 bits (``runtime.models.graph_stage``), exit heads in PyTorch."""

from __future__ import annotations

from runtime.bundles.bundle import Bundle
from runtime.inference.engines.torch_engine import TorchEngine
from runtime.models.graph_stage import openvino
from runtime.workloads.base import Workload


class OpenVinoEngine(TorchEngine):
    """The models of one bundle whose stages OpenVINO runs. UsageError where the library is missing."""

    precisions: tuple[str, ...] = ("int8",)

    def __init__(self, bundle: Bundle, workload: Workload) -> None:
        super().__init__(bundle, workload)
        self.version = f"openvino {openvino().__version__.split('-')[0]}"
