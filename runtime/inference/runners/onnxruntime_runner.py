"""Runs a piece with ONNX Runtime, on one thread."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from controller.errors import UsageError
from runtime.models.pieces import Piece

INSTALL = "pip install '.[onnx]'"


class OnnxRuntime:
    """Owns a session. UsageError where the library is missing."""

    def __init__(self, piece: Piece) -> None:
        try:
            import onnxruntime
        except ImportError:
            raise UsageError(f"a foreign model needs ONNX Runtime; install it with {INSTALL}") from None
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        options.log_severity_level = 3
        self._session = onnxruntime.InferenceSession(piece.graph, options, providers=["CPUExecutionProvider"])
        self._inputs, self._outputs = piece.inputs, list(piece.outputs)

    def __call__(self, arrays: Sequence[NDArray[np.float32]]) -> list[NDArray[np.float32]]:
        found: list[NDArray[np.float32]] = self._session.run(
            self._outputs, dict(zip(self._inputs, arrays, strict=True))
        )
        return found
