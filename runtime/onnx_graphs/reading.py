"""Read the ONNX file of a foreign model and say what is wrong with it before any work is done."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from controller.errors import FailureError, UsageError
from runtime.onnx_graphs.library import DTYPES, onnx_library, onnxruntime_library, open_session, reason

_MOST_BYTES = 2 << 30  # of one model: the limit of protobuf
#: Operators of these domains run without a library of the model's maker.
_KNOWN_DOMAINS = frozenset({"", "ai.onnx", "ai.onnx.ml", "com.microsoft"})
_CHANNELS = (1, 3)
_MOST_SIDE_PX = 16_384
_EXPECTED = "expected an ONNX file, or file.py:function that returns an nn.Module"


@dataclass(frozen=True)
class ImageInput:
    """The input of a model. None for a size that the file leaves open."""

    name: str
    layout: str  # "NCHW" or "NHWC"
    dtype: str  # "float32", "float16" or "uint8"
    channels: int
    height: int | None
    width: int | None


@dataclass(frozen=True)
class ForeignModel:
    """A model that can be read and run. Owns its `onnx.ModelProto`, which nobody changes."""

    proto: Any
    image: ImageInput
    name: str  # of the file, for messages


def read_model(path: Path) -> ForeignModel:
    """Read an ONNX file.

    UsageError when there is no such file or it is not a model with one image as input; FailureError when it is one
    that the installed libraries cannot run.
    """
    proto = _parsed(path)
    _attach_external(proto, path)
    return checked_model(proto, path.name)


def checked_model(proto: Any, name: str) -> ForeignModel:
    """The model of a `ModelProto` whose weights are in it. Errors as `read_model`."""
    if not proto.graph.node:
        raise UsageError(f"{name}: the graph has no operators; expected an ONNX model")
    if not proto.graph.output:
        raise UsageError(f"{name}: the graph has no outputs; expected an ONNX model")
    _check_domains(proto, name)
    image = _image_input(proto, name)
    if proto.functions:
        proto = onnx_library().inliner.inline_local_functions(proto)
    _check_runs(proto, name)
    return ForeignModel(proto, image, name)


def _parsed(path: Path) -> Any:
    onnx = onnx_library()
    try:
        size = path.stat().st_size
        if not path.is_file():
            raise UsageError(f"{path} is not a file; {_EXPECTED}")
        if not 0 < size <= _MOST_BYTES:
            raise UsageError(f"{path} has {size} bytes; expected an ONNX model of at most 2 GiB, weights included")
        proto = onnx.load_model_from_string(path.read_bytes())
    except OSError as error:
        raise UsageError(f"{path}: {error.strerror}; {_EXPECTED}") from None
    except UsageError:
        raise
    except Exception as error:  # noqa: BLE001 - protobuf's errors have no common base
        raise UsageError(f"{path} is not an ONNX model, or is cut short: {reason(error)}; {_EXPECTED}") from None
    if not proto.ir_version or not proto.opset_import:
        raise UsageError(
            f"{path} is not an ONNX model, or is cut short: it states no version of the format; {_EXPECTED}"
        )
    return proto


def _attach_external(proto: Any, path: Path) -> None:
    """Read the weights that are in files of their own."""
    onnx = onnx_library()
    outside = [tensor for tensor in proto.graph.initializer if tensor.data_location == onnx.TensorProto.EXTERNAL]
    for tensor in outside:
        location = next((entry.value for entry in tensor.external_data if entry.key == "location"), "")
        if not (path.parent / location).is_file():
            raise UsageError(
                f"{path.name}: its weights are in {location!r}, which is not in {path.parent}; put it beside the model"
            )
    if outside:
        try:
            onnx.load_external_data_for_model(proto, str(path.parent))
        except Exception as error:  # noqa: BLE001 - the library's errors have no common base
            raise UsageError(f"{path.name}: its external weights cannot be read: {reason(error)}") from None


def _check_domains(proto: Any, name: str) -> None:
    local = {(function.domain, function.name) for function in proto.functions}
    for node in proto.graph.node:
        if node.domain not in _KNOWN_DOMAINS and (node.domain, node.op_type) not in local:
            raise UsageError(
                f"{name}: operator {node.op_type} of {node.domain!r} needs a library of its maker; "
                "export the model with standard ONNX operators"
            )


def _image_input(proto: Any, name: str) -> ImageInput:
    weights = {tensor.name for tensor in proto.graph.initializer}
    inputs = [value for value in proto.graph.input if value.name not in weights]
    if len(inputs) != 1:
        names = ", ".join(value.name for value in inputs) or "none"
        raise UsageError(f"{name}: has {len(inputs)} inputs ({names}); expected one, the image")
    value = inputs[0]
    tensor = value.type.tensor_type
    dims = [dim.dim_value if dim.dim_value > 0 else None for dim in tensor.shape.dim]
    dtype = DTYPES.get(tensor.elem_type)
    layout = _layout(dims)
    if layout is None or dtype is None:
        shown = ", ".join("?" if size is None else str(size) for size in dims)
        raise UsageError(
            f"{name}: input {value.name!r} is ({shown}) of {dtype or _type_name(value.type)}; expected an image "
            "(batch, 1 or 3, h, w) or (batch, h, w, 1 or 3) of float32, float16 or uint8; export the model with "
            "such an input"
        )
    if (dims[0] or 1) != 1:
        raise UsageError(
            f"{name}: input {value.name!r} takes {dims[0]} images at a time; expected one: export the model for a "
            "batch of one, or of any size"
        )
    channels, height, width = (dims[1], dims[2], dims[3]) if layout == "NCHW" else (dims[3], dims[1], dims[2])
    if max(height or 1, width or 1) > _MOST_SIDE_PX:
        raise UsageError(
            f"{name}: input {value.name!r} is an image of {height} x {width}; expected at most {_MOST_SIDE_PX} a side"
        )
    return ImageInput(value.name, layout, dtype, channels or 0, height, width)


def _type_name(of: Any) -> str:
    """What an input holds, in the words of the format."""
    if not of.HasField("tensor_type"):
        return "no tensor"
    known = onnx_library().TensorProto.DataType
    number = of.tensor_type.elem_type
    return str(known.Name(number)).lower() if number in known.values() else f"type {number}"


def _layout(dims: list[int | None]) -> str | None:
    if len(dims) != 4:
        return None
    if dims[1] in _CHANNELS:
        return "NCHW"
    return "NHWC" if dims[3] in _CHANNELS else None


def _check_runs(proto: Any, name: str) -> None:
    """Let ONNX Runtime load the model as it is: it knows which versions and operators it runs."""
    try:
        open_session(proto, level="ORT_DISABLE_ALL")
    except UsageError:
        raise
    except Exception as error:  # noqa: BLE001 - the library's errors have no common base
        said = reason(error)
        opsets = ", ".join(f"{entry.domain or 'ai.onnx'} {entry.version}" for entry in proto.opset_import)
        if re.search(r"opset version|IR version", said):
            raise FailureError(
                f"{name}: IR version {proto.ir_version} with opset {opsets} is newer than the installed "
                f"onnxruntime {onnxruntime_library().__version__} knows; export with an older opset, or update it"
            ) from None
        raise UsageError(f"{name}: ONNX Runtime does not load it: {said}") from None
