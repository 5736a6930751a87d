"""The libraries that run a piece of a foreign model, by name."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from controller.errors import UsageError
from runtime.models.pieces import Piece

#: Takes the tensors before a piece, (1, ...) each, and returns those after it.
Runner: TypeAlias = Callable[[Sequence[NDArray[np.float32]]], list[NDArray[np.float32]]]

TORCH = "torch"


def open_runner(name: str, piece: Piece) -> Runner:
    """What runs a piece with the named library, on as many threads as PyTorch may use in this process.

    UsageError where the library is unknown, not installed, or cannot run the piece.
    """
    if name not in RUNNERS:
        raise UsageError(f"got the runner {name!r}; expected one of: {', '.join(RUNNERS)}")
    opened: Runner = RUNNERS[name](piece)
    return opened


def _onnxruntime(piece: Piece) -> Runner:
    from runtime.inference.runners.onnxruntime_runner import OnnxRuntime

    return OnnxRuntime(piece)


def _openvino(piece: Piece) -> Runner:
    from runtime.inference.runners.openvino_runner import OpenVino

    return OpenVino(piece)


def _torch(piece: Piece) -> Runner:
    from runtime.inference.runners.torch_piece import TorchRunner

    return TorchRunner(piece)


RUNNERS: dict[str, Callable[[Piece], Any]] = {"onnxruntime": _onnxruntime, "openvino": _openvino, TORCH: _torch}
