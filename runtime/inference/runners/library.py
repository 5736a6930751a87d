"""The ONNX libraries, imported when a foreign model needs them."""

from __future__ import annotations

from typing import Any

from controller.errors import UsageError

INSTALL = "pip install '.[onnx]'"


def onnx() -> Any:
    """The package onnx, with its helpers; UsageError where it is missing."""
    try:
        import onnx
        import onnx.helper
        import onnx.numpy_helper
    except ImportError:
        raise UsageError(f"a foreign model needs onnx; install it with {INSTALL}") from None
    return onnx


def onnxruntime() -> Any:
    """The package onnxruntime; UsageError where it is missing."""
    try:
        import onnxruntime
    except ImportError:
        raise UsageError(f"a foreign model needs ONNX Runtime; install it with {INSTALL}") from None
    return onnxruntime
