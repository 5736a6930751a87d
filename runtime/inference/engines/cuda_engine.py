"""The CUDA engine: PyTorch on a GPU, in float32 without TF32, so that answers are those of the CPU up to rounding.

A batch crosses to the GPU once, from page-locked memory, stays there between stages, and its outputs come back once.
Modules that only run on the CPU (``cpu_only``) do so, wherever their input is. When the GPU's memory runs out, the
model goes on on the CPU and one line says so; after a minute it tries the GPU again, because other programs use it too.
"""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from controller.errors import UsageError
from runtime.bundles.bundle import Bundle
from runtime.inference.cuda_graphs import TailGraphs, capture_on
from runtime.inference.engines.base import Log, ignore
from runtime.inference.engines.torch_engine import TorchEngine, TorchModel
from runtime.models.foreign_stage import ForeignStage, run_by
from runtime.models.layers import Layer
from runtime.models.stages import BranchyModel
from runtime.workloads.base import Workload
from runtime.workloads.types import Image

CPU = torch.device("cpu")
#: How long a model stays away from a GPU whose memory ran out.
_AWAY_S = 60.0


class NoGpuError(UsageError):
    """There is no GPU that PyTorch can use."""


class CudaModel(TorchModel):
    """Owns a copy of a model on the GPU."""

    def __init__(self, model: BranchyModel, workload: Workload, place: torch.device, name: str, log: Log) -> None:
        super().__init__(model, workload)
        self._gpu, self._name, self._log = place, name, log
        self._place = CPU  # where the model is now
        self._on_cpu = {part for part in (*model.stages, *model.exits) if _is_cpu_only(part)}
        self._graphs: TailGraphs | None = None
        self._again_s = -math.inf  # when to try the GPU
        self._take_gpu()

    def input_of_batch(self, images: Sequence[Image]) -> Tensor:
        return pinned(super().input_of_batch(images), self._place)

    def run_stage(self, z: Tensor, stage: int) -> Tensor:
        return self._run(partial(super().run_stage, stage=stage), self._model.stages[stage], z)

    def run_exit(self, z: Tensor, exit_branch: int) -> Tensor:
        return self._run(partial(super().run_exit, exit_branch=exit_branch), self._model.exits[exit_branch], z)

    def run_tail(self, z: Tensor, stages: range, exit_branch: int) -> Tensor:
        """See ``runtime.inference.engines.base.RunsTails``; as a CUDA graph where that is faster."""
        self._take_gpu()
        parts = [*(self._model.stages[stage] for stage in stages), self._model.exits[exit_branch]]
        if self._graphs is not None and self._on_cpu.isdisjoint(parts):
            plain = partial(self._all_on_gpu, stages=stages, exit_branch=exit_branch)
            try:
                return self._graphs.run((stages.start, exit_branch), z, plain)
            except torch.OutOfMemoryError:
                self._leave_gpu()
        for stage in stages:
            z = self.run_stage(z, stage)
        return self.run_exit(z, exit_branch)

    def _all_on_gpu(self, z: Tensor, stages: range, exit_branch: int) -> Tensor:
        z = z.to(self._place, non_blocking=z.is_pinned())
        for stage in stages:
            z = super().run_stage(z, stage)
        return super().run_exit(z, exit_branch)

    def record_stage(self, z: Tensor, stage: int) -> tuple[Tensor, list[Layer]]:
        output, layers = super().record_stage(self._beside(self._model.stages[stage], z), stage)
        return output, self._waited_for(layers)

    def record_exit(self, z: Tensor, exit_branch: int) -> list[Layer]:
        return self._waited_for(super().record_exit(self._beside(self._model.exits[exit_branch], z), exit_branch))

    def _run(self, run: Callable[[Tensor], Tensor], part: nn.Module, z: Tensor) -> Tensor:
        self._take_gpu()
        try:
            return run(self._beside(part, z))
        except torch.OutOfMemoryError:
            self._leave_gpu()
        return run(z.to(CPU))

    def _beside(self, part: nn.Module, z: Tensor) -> Tensor:
        """The input where the part runs."""
        return z.to(CPU if part in self._on_cpu else self._place, non_blocking=z.is_pinned())

    def _take_gpu(self) -> None:
        """Go to the GPU unless the model is there, or it is too early to try again."""
        if self._place == self._gpu or time.perf_counter() < self._again_s:
            return
        try:
            self._move(self._gpu)
        except torch.OutOfMemoryError:
            self._leave_gpu()
            return
        self._graphs = TailGraphs(capture_on(self._gpu), partial(torch.cuda.synchronize, self._gpu))
        if self._again_s > 0:
            self._log(f"engine cuda: model {self._name} runs on the GPU again")

    def _leave_gpu(self) -> None:
        self._graphs = None  # they would read weights that are freed now
        self._move(CPU)
        for part in self._model.modules():
            if isinstance(part, ForeignStage):
                part.use(part.runner)  # it holds weights on the GPU that are no parameters
        torch.cuda.empty_cache()
        self._again_s = time.perf_counter() + _AWAY_S
        self._log(
            f"engine cuda: the GPU is out of memory; model {self._name} runs on the CPU, and tries the GPU again in "
            f"{_AWAY_S:g} s"
        )

    def _move(self, place: torch.device) -> None:
        for part in (*self._model.stages, *self._model.exits):
            if part not in self._on_cpu:
                part.to(place)
        self._place = place

    def _waited_for(self, layers: list[Layer]) -> list[Layer]:
        """The same layers; calling one returns when the GPU has computed it."""
        return [Layer(layer.info, partial(_finished, layer.call, self._place)) for layer in layers]


class CudaEngine(TorchEngine):
    """The models of one bundle on a GPU. `NoGpuError` where there is none."""

    name = "cuda"
    usual_batch = 32  # requests that a MEC computes together, unless it is told otherwise
    clock = staticmethod(time.perf_counter)  # the GPU's time is none of this thread's

    def __init__(self, bundle: Bundle, workload: Workload, log: Log = ignore) -> None:
        super().__init__(bundle, workload, log)
        if not torch.cuda.is_available():
            build = "" if torch.version.cuda else "; this is the CPU build of PyTorch"
            raise NoGpuError(f"engine cuda: PyTorch {torch.__version__} finds no GPU here{build}")
        torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
        self._place = torch.device("cuda", torch.cuda.current_device())
        self.version = f"{torch.__version__} on {torch.cuda.get_device_name(self._place)}"

    def load(self, model: str) -> CudaModel:
        copied = copy.deepcopy(run_by(self.runner, self._bundle.model(model)))
        return CudaModel(copied, self._workload, self._place, model, self._log)

    def from_arrays(self, tensors: Sequence[NDArray[np.float32]]) -> Tensor:
        batch = torch.empty((len(tensors), *tensors[0].shape), pin_memory=True)
        for row, tensor in enumerate(tensors):
            batch[row].numpy()[...] = tensor
        return batch

    def to_array(self, z: Tensor) -> NDArray[np.float32]:
        if z.device == CPU:
            return super().to_array(z)
        outputs = torch.empty(z.shape, dtype=torch.float32, pin_memory=True)
        outputs.copy_(z, non_blocking=True)
        torch.cuda.current_stream(z.device).synchronize()
        found: NDArray[np.float32] = outputs.numpy()
        return found


def pinned(z: Tensor, place: torch.device) -> Tensor:
    """A batch in page-locked memory, if it goes to a GPU."""
    return z if place == CPU else z.contiguous().pin_memory()


def _is_cpu_only(part: nn.Module) -> bool:
    return any(getattr(module, "cpu_only", False) for module in part.modules())


def _finished(call: Callable[[], Any], place: torch.device) -> Any:
    found = call()
    if place != CPU:
        torch.cuda.synchronize(place)
    return found
