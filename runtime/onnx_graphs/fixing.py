"""Give a foreign model one fixed input size: shape arithmetic is folded away, and every tensor has a known shape.

The graph that comes out takes one image as float32 (1, channels, h, w), whatever the file took: a transposition and a
conversion of the pixels are part of it. Weights of float16 are widened to float32, in which a CPU computes anyway.
"""

from __future__ import annotations

import math
import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from controller.errors import FailureError, UsageError
from runtime.models.packing import Shape
from runtime.onnx_graphs.cuts import Flow, Step
from runtime.onnx_graphs.library import FLOAT, FLOAT16, UINT8, onnx_library, open_session, reason
from runtime.onnx_graphs.reading import ForeignModel, ImageInput

IMAGE = "nchw/image"  # the input of a fixed graph; no other tensor is called that
_BYTES = 4  # of a float32
_CONTROL_FLOW = ("If", "Loop", "Scan")


@dataclass(frozen=True)
class FixedGraph:
    """A model at one resolution. Owns its `onnx.ModelProto`, which nobody changes. Shapes include the batch, one."""

    proto: Any
    image: ImageInput  # what the file takes; the graph takes float32 (1, channels, h, w), `IMAGE`
    input_shape: Shape  # (1, channels, h, w)
    outputs: tuple[str, ...]
    shapes: Mapping[str, Shape]  # of every tensor whose shape is known
    flow: Flow  # the operators in an order in which they can run

    @property
    def output_shapes(self) -> tuple[Shape, ...]:
        return tuple(self.shapes[name] for name in self.outputs)

    @cached_property
    def _session(self) -> Any:
        return open_session(self.proto)

    def run(self, image: NDArray[np.float32]) -> list[NDArray[Any]]:
        """The outputs for one image (1, channels, h, w), by ONNX Runtime."""
        found: list[NDArray[Any]] = self._session.run(list(self.outputs), {IMAGE: image})
        return found


def fix_shape(model: ForeignModel, height: int, width: int) -> FixedGraph:
    """The model for images of that size.

    UsageError when it does not take them, when it has control flow, or when the size of an output depends on the
    image, as after non-maximum suppression. FailureError when it gives no numbers for a gray image.
    """
    channels = model.image.channels
    proto = _copy(model.proto)
    _widen(proto)
    _check_varying(proto, model.image.name, model.name)
    _take_image(proto, model.image, (1, channels, height, width))
    proto = _with_shapes(_folded(proto, model.name, (height, width)), model.name)
    _check_control_flow(proto, model.name)
    shapes, dtypes = _shapes_and_dtypes(proto)
    outputs = tuple(value.name for value in proto.graph.output)
    _check_outputs(outputs, shapes, model.name)
    flow = _flow(proto, shapes, dtypes)
    fixed = FixedGraph(proto, model.image, (1, channels, height, width), outputs, shapes, flow)
    _check_answer(fixed, model.name)
    return fixed


def _copy(proto: Any) -> Any:
    copied = type(proto)()
    copied.CopyFrom(proto)
    return copied


def _widen(proto: Any) -> None:
    """Turn float16 into float32, in place."""
    graph = proto.graph
    for value in (*graph.input, *graph.output):
        if value.type.tensor_type.elem_type == FLOAT16:
            value.type.tensor_type.elem_type = FLOAT
    del graph.value_info[:]  # inferred again once the size is fixed
    for tensor in graph.initializer:
        _widen_tensor(tensor)
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.HasField("t"):
                _widen_tensor(attribute.t)
            if attribute.name in ("to", "dtype") and attribute.i == FLOAT16:
                attribute.i = FLOAT


def _widen_tensor(tensor: Any) -> None:
    if tensor.data_type == FLOAT16:
        helper = onnx_library().numpy_helper
        tensor.CopyFrom(helper.from_array(helper.to_array(tensor).astype(np.float32), tensor.name))


def _take_image(proto: Any, image: ImageInput, shape: Shape) -> None:
    """Make the input float32 (1, channels, h, w), in place; what the file took is computed from it."""
    helper, graph = onnx_library().helper, proto.graph
    name, nodes = IMAGE, []
    if image.layout == "NHWC":
        name = IMAGE + "/nhwc"
        nodes.append(helper.make_node("Transpose", [IMAGE], [name], perm=[0, 2, 3, 1]))
    if image.dtype == "uint8":
        nodes.append(helper.make_node("Cast", [name], [image.name], to=UINT8))
    else:
        nodes.append(helper.make_node("Identity", [name], [image.name]))
    rest = list(graph.node)
    del graph.node[:]
    graph.node.extend([*nodes, *rest])
    weights = {tensor.name for tensor in graph.initializer}
    kept = [value for value in graph.input if value.name in weights]  # files of old versions list weights as inputs
    del graph.input[:]
    graph.input.extend([helper.make_tensor_value_info(IMAGE, FLOAT, shape), *kept])


def _folded(proto: Any, name: str, size: tuple[int, int]) -> Any:
    """What ONNX Runtime's basic level leaves: constants computed, norms in the convolutions, standard operators."""
    onnx = onnx_library()
    for value in proto.graph.output:
        value.type.tensor_type.ClearField("shape")  # of the file, which may hold names of sizes that are now known
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "folded.onnx"
        try:
            open_session(proto, level="ORT_ENABLE_BASIC", saved_to=str(file))
        except UsageError:
            raise
        except Exception as error:  # noqa: BLE001 - the library's errors have no common base
            raise _refused(name, size, error) from None
        return onnx.load(str(file))


def _check_varying(proto: Any, image: str, name: str) -> None:
    """ONNX Runtime does not keep an output that it folds."""
    varying = {image}
    for node in proto.graph.node:
        if varying.intersection(_names_in(node)):
            varying.update(node.output)
    for value in proto.graph.output:
        if value.name not in varying or value.name == image:
            raise UsageError(
                f"{name}: output {value.name!r} is not computed from the image; export the model without it"
            )


def _names_in(node: Any) -> Iterator[str]:
    """Names that an operator reads, also in its branches."""
    yield from node.input
    for attribute in node.attribute:
        for inner in (*attribute.graphs, *([attribute.g] if attribute.HasField("g") else [])):
            for below in inner.node:
                yield from _names_in(below)
            yield from (value.name for value in inner.output)


def _with_shapes(proto: Any, name: str) -> Any:
    onnx = onnx_library()
    try:
        return onnx.shape_inference.infer_shapes(proto, data_prop=True)
    except Exception as error:  # noqa: BLE001 - the library's errors have no common base
        raise FailureError(f"{name}: its shapes cannot be inferred: {reason(error)}") from None


def _check_control_flow(proto: Any, name: str) -> None:
    """Branches on constants are gone by now."""
    for node in proto.graph.node:
        if node.op_type in _CONTROL_FLOW:
            raise UsageError(
                f"{name}: operator {node.name or node.op_type!r} is control flow ({node.op_type}), which cannot be "
                "cut; export the model without branches and loops over its data"
            )


def _shapes_and_dtypes(proto: Any) -> tuple[dict[str, Shape], dict[str, int]]:
    shapes, dtypes = {}, {}
    for value in (*proto.graph.input, *proto.graph.value_info, *proto.graph.output):
        tensor = value.type.tensor_type
        dtypes[value.name] = tensor.elem_type
        if tensor.HasField("shape") and all(dim.dim_value > 0 for dim in tensor.shape.dim):
            shapes[value.name] = tuple(dim.dim_value for dim in tensor.shape.dim)
    for weight in proto.graph.initializer:
        shapes[weight.name] = tuple(weight.dims)
    return shapes, dtypes


def _check_outputs(outputs: tuple[str, ...], shapes: Mapping[str, Shape], name: str) -> None:
    for output in outputs:
        if output not in shapes:
            raise UsageError(
                f"{name}: the size of output {output!r} depends on the image; export the model without "
                "non-maximum suppression and other operators of variable output"
            )


def _check_answer(fixed: FixedGraph, name: str) -> None:
    """Some errors of shape come up only when the graph runs."""
    gray = 127.0 if fixed.image.dtype == "uint8" else 0.5
    try:
        outputs = fixed.run(np.full(fixed.input_shape, gray, np.float32))
    except Exception as error:  # noqa: BLE001 - the library's errors have no common base
        raise _refused(name, fixed.input_shape[2:], error) from None
    for output, values in zip(fixed.outputs, outputs, strict=True):
        if not np.isfinite(values).all():
            raise FailureError(
                f"{name}: output {output!r} is not a number for a gray image; check the weights of the file"
            )


def _refused(name: str, size: Shape, error: Exception) -> UsageError:
    return UsageError(f"{name} does not take images of {size[0]} x {size[1]}: {reason(error)}; choose another size")


def _flow(proto: Any, shapes: Mapping[str, Shape], dtypes: Mapping[str, int]) -> Flow:
    """The operators that depend on the image and that an output depends on."""
    nodes = [node for node in proto.graph.node if node.op_type != "Constant"]
    needed = {value.name for value in proto.graph.output}
    useful = []
    for node in reversed(nodes):
        if needed.intersection(node.output):
            needed.update(node.input)
            useful.append(node)
    varying, steps = {IMAGE}, []
    for node in reversed(useful):
        inputs = tuple(name for name in node.input if name in varying)
        if inputs:
            varying.update(name for name in node.output if name)
            steps.append(Step(inputs, tuple(name for name in node.output if name), _macs(node, shapes)))
    sizes = {
        name: _BYTES * math.prod(shapes[name])
        for name in varying
        if name in shapes and dtypes.get(name) == FLOAT and name != IMAGE
    }
    outputs = tuple(value.name for value in proto.graph.output if value.name in varying)
    return Flow(IMAGE, outputs, tuple(steps), sizes)


def _macs(node: Any, shapes: Mapping[str, Shape]) -> int:
    count = _MACS.get(node.op_type)
    names = (*node.input[:2], node.output[0])
    if count is None or not all(name in shapes for name in names):
        return 0
    return count(node, *(shapes[name] for name in names))


def _conv(node: Any, x: Shape, weight: Shape, output: Shape) -> int:
    return math.prod(output) * math.prod(weight[1:])


def _conv_transpose(node: Any, x: Shape, weight: Shape, output: Shape) -> int:
    return math.prod(x) * math.prod(weight[1:])


def _gemm(node: Any, x: Shape, weight: Shape, output: Shape) -> int:
    transposed = any(attribute.name == "transA" and attribute.i for attribute in node.attribute)
    return math.prod(output) * (x[0] if transposed else x[1])


def _matmul(node: Any, x: Shape, weight: Shape, output: Shape) -> int:
    return math.prod(output) * x[-1]


_MACS: dict[str, Callable[[Any, Shape, Shape, Shape], int]] = {
    "Conv": _conv,
    "ConvTranspose": _conv_transpose,
    "Gemm": _gemm,
    "MatMul": _matmul,
}
