"""Runs a piece with ONNX Runtime."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from controller.errors import FailureError, UsageError
from runtime.models.pieces import Piece
from runtime.onnx_graphs.library import open_session, reason


class OnnxRuntime:
    """Owns a session. UsageError where the library is missing, FailureError where it refuses the graph."""

    def __init__(self, piece: Piece) -> None:
        try:
            self._session = open_session(piece.graph, threads=torch.get_num_threads())
        except UsageError:
            raise
        except Exception as error:  # noqa: BLE001 - its errors have no base of their own
            raise FailureError(f"ONNX Runtime cannot run a piece of the model: {reason(error)}") from None
        self._inputs, self._outputs = piece.inputs, list(piece.outputs)

    def __call__(self, arrays: Sequence[NDArray[np.float32]]) -> list[NDArray[np.float32]]:
        found: list[NDArray[np.float32]] = self._session.run(
            self._outputs, dict(zip(self._inputs, arrays, strict=True))
        )
        return found
