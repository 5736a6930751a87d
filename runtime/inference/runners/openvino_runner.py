"""Runs a piece with OpenVINO, in float32."""

from __future__ import annotations

from collections.abc import Sequence
from io import BytesIO

import numpy as np
from numpy.typing import NDArray

from controller.errors import FailureError
from runtime.models.graph_stage import compile_options, openvino
from runtime.models.pieces import Piece


class OpenVino:
    """Owns a compiled graph. UsageError where the library is missing, FailureError where it refuses the graph."""

    def __init__(self, piece: Piece) -> None:
        ov = openvino()
        core = ov.Core()
        try:
            graph = core.read_model(BytesIO(piece.graph))
            self._request = core.compile_model(graph, "CPU", compile_options()).create_infer_request()
        except RuntimeError as error:
            reason = " ".join(str(error).split())[:200]
            raise FailureError(f"OpenVINO cannot run a piece of the model: {reason}") from None
        compiled = self._request.get_compiled_model()
        self._inputs = [compiled.input(name) for name in piece.inputs]
        self._outputs = [compiled.output(name) for name in piece.outputs]

    def __call__(self, arrays: Sequence[NDArray[np.float32]]) -> list[NDArray[np.float32]]:
        tensor = openvino().Tensor
        for port, array in zip(self._inputs, arrays, strict=True):
            self._request.set_tensor(port, tensor(np.ascontiguousarray(array), shared_memory=True))
        self._request.infer()
        # Copies, because another frame may pass this piece before the next one reads them.
        return [self._request.get_tensor(port).data.copy() for port in self._outputs]
