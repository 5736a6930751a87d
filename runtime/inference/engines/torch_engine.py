"""The PyTorch engine: float32 models on the CPU, with batch norm folded into the convolutions."""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from runtime.bundles.bundle import Bundle
from runtime.models.layer_kinds import recorded_layers
from runtime.models.layers import Layer
from runtime.models.stages import BranchyModel
from runtime.workloads.base import Workload
from runtime.workloads.inputs import model_input
from runtime.workloads.types import Image


class TorchModel:
    """A branchy model of the bundle; see ``runtime.inference.engines.base.LoadedModel``."""

    def __init__(self, model: BranchyModel, workload: Workload) -> None:
        self._model = model
        self._workload = workload

    def input_of(self, image: Image) -> Tensor:
        # torch refuses to wrap read-only memory without a warning; data sets and received buffers are read-only.
        return model_input(self._workload, self._model, np.require(image, requirements="W")[None])

    def run_stage(self, z: Tensor, stage: int) -> Tensor:
        return self._model.run_stages(z, stage, stage + 1)

    def run_exit(self, z: Tensor, exit_branch: int) -> Tensor:
        return self._model.tail(z, self._model.exit_after[exit_branch], exit_branch)

    def record_stage(self, z: Tensor, stage: int) -> tuple[Tensor, list[Layer]]:
        with recorded_layers(self._model.stages[stage]) as layers:
            output = self.run_stage(z, stage)
        return output, layers

    def record_exit(self, z: Tensor, exit_branch: int) -> list[Layer]:
        with recorded_layers(self._model.exits[exit_branch]) as layers:
            self.run_exit(z, exit_branch)
        return layers


class TorchEngine:
    """The models of one bundle in PyTorch; see ``runtime.inference.engines.base.Engine``. The bundle owns the
    weights."""

    precisions: tuple[str, ...] = ("float32",)
    version = str(torch.__version__)

    def __init__(self, bundle: Bundle, workload: Workload) -> None:
        self._bundle = bundle
        self._workload = workload

    def use_threads(self, count: int) -> None:
        torch.set_num_threads(count)

    def load(self, model: str) -> TorchModel:
        return TorchModel(self._bundle.model(model), self._workload)

    def computing(self) -> AbstractContextManager[Any]:
        return torch.inference_mode()

    def from_array(self, tensor: NDArray[np.float32]) -> Tensor:
        return torch.from_numpy(tensor)[None]

    def to_array(self, z: Tensor) -> NDArray[np.float32]:
        return z.numpy().astype(np.float32, copy=False)
