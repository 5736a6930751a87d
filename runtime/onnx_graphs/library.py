"""The optional libraries that read and run ONNX graphs, and the names under which a graph states its dtypes."""

from __future__ import annotations

import re
from typing import Any

from controller.errors import UsageError

INSTALL = "pip install '.[onnx]'"
#: Where in the library's sources an error comes from: a file, a line, and the signature of a function.
_SOURCE = re.compile(r"/onnxruntime_src/\S+( (?:static )?[\w:<>&*]+(?: [\w:<>&*~]+)?\([^)]*\)+)?\s*")
#: Names of `TensorProto.DataType`, which are constants of the format.
FLOAT, UINT8, FLOAT16 = 1, 2, 10
DTYPES = {FLOAT: "float32", UINT8: "uint8", FLOAT16: "float16"}


def onnx_library() -> Any:
    """The package onnx; UsageError where it is missing."""
    try:
        import onnx
        import onnx.inliner
        import onnx.shape_inference
        import onnx.utils
    except ImportError:
        raise _missing("onnx") from None
    return onnx


def onnxruntime_library() -> Any:
    """The package onnxruntime; UsageError where it is missing."""
    try:
        import onnxruntime
    except ImportError:
        raise _missing("onnxruntime") from None
    return onnxruntime


def open_session(model: Any, *, level: str = "ORT_ENABLE_ALL", saved_to: str = "", threads: int = 1) -> Any:
    """A session of ONNX Runtime, for a `ModelProto` or its bytes.

    ``level``: of its `GraphOptimizationLevel`. ``saved_to``: file for the optimised graph. Raises what the library
    raises, see `reason`.
    """
    onnxruntime = onnxruntime_library()
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    options.log_severity_level = 4
    # Threads of its own would spin between two frames on cores that other programs need.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    # Memory that the library keeps for the next run: 70 MB for each stage of a detector at 640 px, and no faster.
    options.enable_cpu_mem_arena = False
    options.graph_optimization_level = getattr(onnxruntime.GraphOptimizationLevel, level)
    if saved_to:
        options.optimized_model_filepath = saved_to
    data = model if isinstance(model, bytes) else model.SerializeToString()
    return onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])


def reason(error: BaseException) -> str:
    """The message of a foreign exception on one line, without the name of its C++ function."""
    text = " ".join(str(error).split())
    text = _SOURCE.sub("", text.rsplit("&, const onnxruntime::", 1)[-1]).removeprefix("[ONNXRuntimeError] : ")
    return text[:300].rstrip(" ;.")


def _missing(package: str) -> UsageError:
    return UsageError(f"a foreign model needs the package {package}; install it with {INSTALL}")
