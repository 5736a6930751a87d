"""An engine: PyTorch with convolutions and matrix products in bfloat16, for processors with matrix units for it."""

import torch

from runtime.inference.engines.torch_engine import TorchEngine, TorchModel
from runtime.models.foreign_stage import run_by


class Bfloat16Model(TorchModel):
    """Stages compute in bfloat16. Exit heads, and what crosses the uplink, stay float32."""

    def run_stage(self, z: torch.Tensor, stage: int) -> torch.Tensor:
        with torch.autocast("cpu", torch.bfloat16):
            output = super().run_stage(z, stage)
        return output.float() if output.is_floating_point() else output


class Bfloat16Engine(TorchEngine):
    """Bfloat16 has 8 significant bits: expect outputs within a few hundredths of the range of float32's.

    Measure before you use it: without matrix units, casting costs more than it saves.
    """

    name = "bfloat16"
    version = f"{torch.__version__} bfloat16"  # stored in profiles

    def load(self, model: str) -> Bfloat16Model:
        return Bfloat16Model(run_by(self.runner, self._bundle.model(model)), self._workload)
