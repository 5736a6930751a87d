"""A stage of a foreign model: runs the piece of the resolution that arrives."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from runtime.inference.runners import Runner, open_runner
from runtime.models.packing import Shape, Shapes, is_packed, pack, packed_shape, unpack
from runtime.models.pieces import Piece

DEFAULT_RUNNER = "onnxruntime"


class ForeignStage(nn.Module):
    """Owns the pieces of one stage, one for each resolution, and what runs them. It has no parameters.

    Input and output are (batch, channels, h, w), or (batch, values) where several tensors are packed into one
    (``runtime.models.packing``). The shape of the input says which piece runs.
    """

    def __init__(self, pieces: Iterable[Piece] = (), runner: str = DEFAULT_RUNNER) -> None:
        super().__init__()
        self.runner = runner
        self._pieces: dict[Shape, Piece] = {}
        self._runners: dict[Shape, Runner] = {}
        self.attach(pieces)

    def __getstate__(self) -> dict[str, Any]:
        """Without what runs the pieces, which cannot be copied: a copy opens its own."""
        return {**self.__dict__, "_runners": {}}

    @property
    def pieces(self) -> tuple[Piece, ...]:
        return tuple(self._pieces.values())

    def attach(self, pieces: Iterable[Piece]) -> None:
        """Run these pieces from now on."""
        self._pieces = {packed_shape(piece.input_shapes): piece for piece in pieces}
        self._runners = {}

    def use(self, runner: str) -> None:
        """Run the pieces with another library (``runtime.inference.runners``) from now on."""
        self.runner, self._runners = runner, {}

    def forward(self, x: Tensor) -> Tensor:
        shape = tuple(x.shape[1:])
        piece, run = self._piece(shape), self._runner(shape)
        samples = [run(unpack(sample[None], piece.input_shapes)) for sample in x.numpy()]
        packed = np.concatenate([pack(outputs) for outputs in samples])
        return torch.from_numpy(packed)

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
