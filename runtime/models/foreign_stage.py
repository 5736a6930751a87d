"""A stage of a foreign model: runs the piece of the resolution that arrives."""

from __future__ import annotations

import copy
from collections.abc import Iterable
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor, nn

from runtime.inference.runners import TORCH, Runner, open_runner
from runtime.models.packed_tensors import packed, unpacked
from runtime.models.packing import Shape, Shapes, is_packed, pack, packed_shape, unpack
from runtime.models.pieces import Piece

AnyModule = TypeVar("AnyModule", bound=nn.Module)

DEFAULT_RUNNER = "onnxruntime"


def has_foreign_stages(model: nn.Module) -> bool:
    """Whether any part of a model is a piece of a foreign one."""
    return any(isinstance(module, ForeignStage) for module in model.modules())


def run_by(runner: str, model: AnyModule) -> AnyModule:
    """The model with its foreign stages run by a library: a copy, unless there are none."""
    if not has_foreign_stages(model):
        return model
    copied = copy.deepcopy(model)
    for module in copied.modules():
        if isinstance(module, ForeignStage):
            module.use(runner)
    return copied


class ForeignStage(nn.Module):
    """Owns the pieces of one stage, one for each resolution, and what runs them. It has no parameters.

    Input and output are (batch, channels, h, w), or (batch, values) where several tensors are packed into one
    (``runtime.models.packing``). The shape of the input says which piece runs. With the runner "torch" the stage is
    differentiable and runs where its input is, otherwise on the CPU.
    """

    def __init__(self, pieces: Iterable[Piece] = (), runner: str = DEFAULT_RUNNER) -> None:
        super().__init__()
        self.runner = runner
        self._pieces: dict[Shape, Piece] = {}
        self._runners: dict[Shape, Runner] = {}
        self._modules_of: dict[tuple[Shape, torch.device], nn.Module] = {}  # of the runner "torch"
        self.attach(pieces)

    def __getstate__(self) -> dict[str, Any]:
        """Without what runs the pieces, which cannot be copied: a copy opens its own."""
        return {**self.__dict__, "_runners": {}, "_modules_of": {}}

    @property
    def pieces(self) -> tuple[Piece, ...]:
        return tuple(self._pieces.values())

    def attach(self, pieces: Iterable[Piece]) -> None:
        """Run these pieces from now on."""
        self._pieces = {packed_shape(piece.input_shapes): piece for piece in pieces}
        self._runners, self._modules_of = {}, {}

    def use(self, runner: str) -> None:
        """Run the pieces with another library (``runtime.inference.runners``) from now on."""
        self.runner, self._runners, self._modules_of = runner, {}, {}

    def __deepcopy__(self, _: object) -> ForeignStage:
        """A stage of the same pieces, without what runs them: libraries do not copy their sessions."""
        return ForeignStage(self._pieces.values(), self.runner).train(self.training)

    @property
    def cpu_only(self) -> bool:
        """Whether inputs must be on the CPU."""
        return self.runner != TORCH

    def forward(self, x: Tensor) -> Tensor:
        shape = tuple(x.shape[1:])
        shapes = self._piece(shape).input_shapes
        if self.runner == TORCH:
            return packed(self._module(shape, x.device)(unpacked(x, shapes)))
        run = self._runner(shape)
        samples = [pack(run(unpack(sample[None], shapes))) for sample in x.numpy()]
        return torch.from_numpy(samples[0] if len(samples) == 1 else np.concatenate(samples))

    def parts_of(self, packed: Shape) -> Shapes:
        """See `runtime.models.packing.PackingStage`."""
        shapes = next(
            piece.output_shapes for piece in self._pieces.values() if packed_shape(piece.output_shapes) == packed
        )
        return shapes if is_packed(shapes) else ()

    def macs_of(self, packed: Shape) -> int:
        """Multiply-accumulates for an input of that shape."""
        return self._piece(packed).macs

    def _piece(self, shape: Shape) -> Piece:
        if shape not in self._pieces:
            raise ValueError(f"a foreign stage got an input of {shape}; expected one of {sorted(self._pieces)}")
        return self._pieces[shape]

    def _runner(self, shape: Shape) -> Runner:
        if shape not in self._runners:
            self._runners[shape] = open_runner(self.runner, self._piece(shape))
        return self._runners[shape]

    def _module(self, shape: Shape, device: torch.device) -> nn.Module:
        """The piece in PyTorch, on that device."""
        if (shape, device) not in self._modules_of:
            from runtime.inference.runners.torch_piece import TorchPiece

            self._modules_of[shape, device] = TorchPiece(self._piece(shape)).to(device)
        return self._modules_of[shape, device]
