"""Runs a piece with ONNX Runtime."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from controller.errors import FailureError
from runtime.inference.runners.library import onnxruntime
from runtime.models.pieces import Piece


class OnnxRuntime:
    """Owns a session. UsageError where the library is missing, FailureError where it refuses the graph."""

    def __init__(self, piece: Piece) -> None:
        library = onnxruntime()
        options = library.SessionOptions()
        options.intra_op_num_threads, options.inter_op_num_threads = torch.get_num_threads(), 1
        options.log_severity_level = 3
        # Memory that the library keeps for the next run: 70 MB for each stage of a detector at 640 px, and no faster.
        options.enable_cpu_mem_arena = False
        # Threads of its own would spin between two frames on cores that other programs need.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        try:
            self._session = library.InferenceSession(piece.graph, options, providers=["CPUExecutionProvider"])
        except Exception as error:  # noqa: BLE001 - its errors have no base of their own
            reason = " ".join(str(error).split())[:200]
            raise FailureError(f"ONNX Runtime cannot run a piece of the model: {reason}") from None
        self._inputs, self._outputs = piece.inputs, list(piece.outputs)

    def __call__(self, arrays: Sequence[NDArray[np.float32]]) -> list[NDArray[np.float32]]:
        found: list[NDArray[np.float32]] = self._session.run(
            self._outputs, dict(zip(self._inputs, arrays, strict=True))
        )
        return found
