"""The OpenVINO engine: stages in 8 bits (``runtime.models.graph_stage``) or float32, exit heads in PyTorch.

Stages of foreign models are read from their ONNX graphs; those of mecpilot's own models in float32 are converted when
the model is loaded.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from controller.errors import FailureError
from runtime.bundles.bundle import Bundle
from runtime.inference.engines.base import Log, ignore
from runtime.inference.engines.torch_engine import TorchEngine, TorchModel
from runtime.models.foreign_stage import has_foreign_stages, run_by
from runtime.models.graph_stage import GraphStage, graph_of, openvino, serialised
from runtime.models.stages import BranchyModel
from runtime.plug_ins import in_a_line
from runtime.workloads.base import Workload
from runtime.workloads.inputs import model_input


class OpenVinoEngine(TorchEngine):
    """The models of one bundle whose stages OpenVINO runs. UsageError where the library is missing."""

    name = "openvino"
    precisions: tuple[str, ...] = ("int8", "float32")
    runner = "openvino"

    def __init__(self, bundle: Bundle, workload: Workload, log: Log = ignore) -> None:
        super().__init__(bundle, workload, log)
        self.version = f"openvino {openvino().__version__.split('-')[0]}"

    def load(self, model: str) -> TorchModel:
        """FailureError when a stage cannot be converted."""
        loaded, info = self._bundle.model(model), self._bundle.info(model)
        if has_foreign_stages(loaded):
            loaded = run_by(self.runner, loaded)
        elif info.precision == "float32":
            px = min(self._bundle.manifest.resolutions_of(info))
            blank = np.zeros((1, *self._bundle.manifest.input_shapes[px]), np.uint8)
            loaded = _converted(loaded, model_input(self._workload, loaded, blank), model)
        return TorchModel(loaded, self._workload)


@torch.no_grad()
def _converted(model: BranchyModel, z: Tensor, name: str) -> BranchyModel:
    """The model with graphs in place of stages. ``z`` (1, channels, h, w) is an input of it."""
    stages: list[nn.Module] = []
    for number, stage in enumerate(model.stages):
        z = model.arranged(z)
        stages.append(_graph_stage(stage, z, f"stage {number} of {name}"))
        z = stage(z)
    return BranchyModel(
        stages,
        list(model.exits),
        model.exit_after,
        takes_pixels=model.takes_pixels,
        channels_last=model.channels_last,
    ).eval()


def _graph_stage(stage: nn.Module, z: Tensor, name: str) -> nn.Module:
    """The stage as a graph; as it is where it takes no float picture, as the compiled encoder of pixels."""
    if any(getattr(part, "cpu_only", False) for part in stage.modules()) or z.ndim != 4:
        return stage
    try:
        return GraphStage(serialised(graph_of(stage, z)), name, "float32")
    except Exception as error:  # noqa: BLE001 - converters fail in many ways
        raise FailureError(f"OpenVINO cannot convert {name}: {in_a_line(error)}; use another --engine") from None
