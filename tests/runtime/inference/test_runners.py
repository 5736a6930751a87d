"""Pieces of foreign models give the same in every library, up to rounding."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from torch import nn

from controller.errors import FailureError, UsageError
from runtime.inference.runners import RUNNERS, open_runner
from runtime.inference.runners.torch_piece import TorchPiece
from runtime.models.foreign_stage import ForeignStage, run_by
from runtime.models.pieces import Piece
from runtime.models.stages import BranchyModel

#: Largest difference of two libraries, as a fraction of the range of an output.
TOLERANCE_FRAC = 1e-4
PICTURE = (4, 10, 12)

Constant = NDArray[Any] | None
Case = tuple[str, dict[str, Any], list[Constant]]


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def piece_of(graph: onnx.GraphProto, inputs: tuple[tuple[int, ...], ...], outputs: int = 1, opset: int = 18) -> Piece:
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)
    names = tuple(value.name for value in graph.input)
    piece = Piece(model.SerializeToString(), names, inputs, tuple(value.name for value in graph.output), (), 0)
    found = open_runner("onnxruntime", piece)([np.zeros((1, *shape), np.float32) for shape in inputs])
    assert len(found) == outputs
    return Piece(piece.graph, names, inputs, piece.outputs, tuple(array.shape[1:] for array in found), 0)


def graph_of(
    nodes: list[onnx.NodeProto], inputs: dict[str, tuple[int, ...]], outputs: list[str], constants: dict[str, Any]
) -> onnx.GraphProto:
    return helper.make_graph(
        nodes,
        "piece",
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, *shape]) for name, shape in inputs.items()],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in outputs],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()],
    )


def piece_of_operator(case: Case, shape: tuple[int, ...] = PICTURE, opset: int = 18) -> Piece:
    """A graph of one operator, whose further inputs are constants; what is no float is cast."""
    kind, attributes, constants = case
    names = ["" if value is None else f"c{place}" for place, value in enumerate(constants)]
    outputs = ["y", "places"] if kind == "TopK" else ["y"]
    nodes = [helper.make_node(kind, ["x", *names], outputs, **attributes), helper.make_node("Cast", ["y"], ["z"], to=1)]
    known = {name: value for name, value in zip(names, constants, strict=True) if value is not None}
    return piece_of(graph_of(nodes, {"x": shape}, ["z"], known), (shape,), opset=opset)


def random(*shape: int, seed: int = 1) -> NDArray[np.float32]:
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def ints(*values: int) -> NDArray[np.int64]:
    return np.array(values, np.int64)


def floats(*values: float) -> NDArray[np.float32]:
    return np.array(values, np.float32)


def assert_agrees(found: NDArray[np.float32], expected: NDArray[np.float32]) -> None:
    assert found.shape == expected.shape
    assert np.abs(found - expected).max() <= TOLERANCE_FRAC * max(1e-3, float(np.ptp(expected)))


C, H, W = PICTURE
CONV = random(6, C, 3, 3)
CASES: list[Case] = [
    *[(kind, {}, []) for kind in ("Relu", "Sigmoid", "Tanh", "Erf", "Exp", "Abs", "Neg", "Softplus", "HardSwish")],
    *[(kind, {}, []) for kind in ("Floor", "Ceil", "Round", "Sign", "Sin", "Cos", "Identity", "Elu", "Softsign")],
    *[(kind, {}, []) for kind in ("HardSigmoid", "LeakyRelu", "GlobalAveragePool", "GlobalMaxPool", "Flatten")],
    ("HardSigmoid", {"alpha": 0.17, "beta": 0.4}, []),
    ("Mish", {}, []),
    ("PRelu", {}, [random(C, 1, 1)]),
    ("Clip", {}, [np.float32(-0.5), np.float32(0.7)]),
    ("Clip", {}, [None, np.float32(0.7)]),
    *[(kind, {}, [random(C, 1, 1)]) for kind in ("Add", "Sub", "Mul", "Div", "Max", "Min", "Equal", "Less", "Greater")],
    ("Pow", {}, [np.float32(2.0)]),
    ("Conv", {"pads": [1, 1, 1, 1]}, [CONV, random(6)]),
    ("Conv", {"pads": [0, 1, 2, 0], "strides": [2, 1]}, [CONV]),
    ("Conv", {"dilations": [2, 2], "pads": [2, 2, 2, 2]}, [CONV]),
    ("Conv", {"group": C, "auto_pad": "SAME_UPPER", "strides": [2, 2]}, [random(C, 1, 3, 3)]),
    ("ConvTranspose", {"strides": [2, 2]}, [random(C, 3, 2, 2), random(3)]),
    ("ConvTranspose", {"strides": [2, 2], "pads": [1, 0, 0, 1], "output_padding": [1, 1]}, [random(C, 3, 3, 3)]),
    ("MaxPool", {"kernel_shape": [3, 3], "strides": [2, 2], "pads": [1, 1, 1, 1]}, []),
    ("MaxPool", {"kernel_shape": [2, 2], "strides": [2, 2], "pads": [0, 0, 1, 1]}, []),
    ("MaxPool", {"kernel_shape": [3, 3], "strides": [2, 2], "ceil_mode": 1}, []),
    ("AveragePool", {"kernel_shape": [3, 3], "pads": [1, 1, 1, 1]}, []),
    ("AveragePool", {"kernel_shape": [3, 3], "pads": [1, 1, 1, 1], "count_include_pad": 1}, []),
    ("AveragePool", {"kernel_shape": [2, 2], "strides": [2, 2], "pads": [0, 0, 1, 1]}, []),
    ("BatchNormalization", {}, [random(C), random(C), random(C), np.abs(random(C)) + 0.1]),
    ("InstanceNormalization", {}, [random(C), random(C)]),
    ("LayerNormalization", {"axis": -1}, [random(W), random(W)]),
    ("LpNormalization", {"axis": 1}, []),
    ("Softmax", {"axis": 1}, []),
    ("LogSoftmax", {}, []),
    ("MatMul", {}, [random(W, 5)]),
    ("Einsum", {"equation": "nchw,wk->nchk"}, [random(W, 5)]),
    *[(f"Reduce{kind}", {}, [ints(2, 3)]) for kind in ("Mean", "Max", "Min", "L2")],
    ("ReduceSum", {"keepdims": 0}, [ints(1)]),
    ("ReduceMean", {"keepdims": 0}, []),
    ("ArgMax", {"axis": 1}, []),
    ("TopK", {"axis": 1}, [ints(2)]),
    ("Concat", {"axis": 1}, [random(1, 2, H, W)]),
    ("Slice", {}, [ints(1, 8), ints(3, -(2**31)), ints(1, 3), ints(1, -2)]),
    ("Reshape", {}, [ints(1, C, -1)]),
    ("Reshape", {}, [ints(0, C * H, W)]),
    ("Transpose", {"perm": [0, 2, 3, 1]}, []),
    ("Unsqueeze", {}, [ints(1, -1)]),
    ("Gather", {"axis": 2}, [ints(3, -1, 0)]),
    ("Tile", {}, [ints(1, 2, 1, 1)]),
    ("Pad", {}, [ints(0, 0, 1, 2, 0, 0, 0, 1), np.float32(0.5)]),
    ("Pad", {"mode": "reflect"}, [ints(0, 0, 1, 2, 0, 0, 0, 1)]),
    ("Pad", {"mode": "edge"}, [ints(0, 0, 1, 2, 0, 0, 0, 1)]),
    ("DepthToSpace", {"blocksize": 2}, []),
    ("DepthToSpace", {"blocksize": 2, "mode": "CRD"}, []),
    ("SpaceToDepth", {"blocksize": 2}, []),
    ("Shape", {}, []),
    ("Cast", {"to": TensorProto.INT32}, []),
    *[
        (
            "Resize",
            {"mode": mode, "coordinate_transformation_mode": how, "nearest_mode": nearest},
            [None, floats(1, 1, *scales)],
        )
        for mode in ("nearest", "linear", "cubic")
        for how in ("half_pixel", "asymmetric", "align_corners", "pytorch_half_pixel")
        for nearest in ("floor", "round_prefer_floor")
        for scales in ((2.0, 2.0), (0.6, 1.5), (3.0, 0.5))
        if mode == "nearest" or nearest == "floor"
    ],
    ("Resize", {"mode": "linear"}, [None, None, ints(1, C, 7, 30)]),
]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case[0])
def test_every_operator_gives_in_pytorch_what_it_gives_in_onnx_runtime(case: Case) -> None:
    piece, x = piece_of_operator(case), random(1, *PICTURE, seed=7)
    (expected,) = open_runner("onnxruntime", piece)([x])
    (found,) = open_runner("torch", piece)([x])
    assert_agrees(found, expected)


@pytest.mark.parametrize(
    ("opset", "case"),
    [
        (11, ("Softmax", {"axis": 1}, [])),
        (11, ("Squeeze", {"axes": [0]}, [])),
        (11, ("ReduceMean", {"axes": [2, 3], "keepdims": 0}, [])),
        (9, ("Upsample", {"mode": "nearest"}, [floats(1, 1, 2, 2)])),
        (10, ("Resize", {"mode": "linear"}, [floats(1, 1, 2, 2)])),
        (9, ("Slice", {"starts": [1], "ends": [3], "axes": [1]}, [])),
        (20, ("Gelu", {"approximate": "tanh"}, [])),
        (21, ("GroupNormalization", {"num_groups": 2}, [random(C), random(C)])),
    ],
    ids=lambda value: value[0] if isinstance(value, tuple) else str(value),
)
def test_operators_of_other_opsets(opset: int, case: Case) -> None:
    piece, x = piece_of_operator(case, opset=opset), random(1, *PICTURE, seed=7)
    assert_agrees(open_runner("torch", piece)([x])[0], open_runner("onnxruntime", piece)([x])[0])


def two_inputs() -> Piece:
    """A convolution of one tensor and attention over another, with shape arithmetic, joined; two outputs."""
    node = helper.make_node
    nodes = [
        node("Conv", ["x", "w"], ["c"], pads=[1, 1, 1, 1]),
        node("Relu", ["c"], ["r"]),
        node("Shape", ["r"], ["s"]),
        node("Slice", ["s", "zero", "two"], ["s2"]),
        node("Concat", ["s2", "minus"], ["flat"], axis=0),
        node("Reshape", ["r", "flat"], ["tokens"]),
        node("Transpose", ["tokens"], ["keys"], perm=[0, 2, 1]),
        node("MatMul", ["tokens", "keys"], ["products"]),
        node("Mul", ["products", "scale"], ["scores"]),
        node("Softmax", ["scores"], ["weights"], axis=-1),
        node("MatMul", ["weights", "t"], ["mixed"]),
        node("Split", ["mixed", "sizes"], ["a", "b"], axis=2),
    ]
    constants = {
        "w": CONV,
        "zero": ints(0),
        "two": ints(2),
        "minus": ints(-1),
        "scale": np.float32(0.01),
        "sizes": ints(3, 5),
    }
    inputs = {"x": PICTURE, "t": (6, 8)}
    return piece_of(graph_of(nodes, inputs, ["a", "b"], constants), (PICTURE, (6, 8)), outputs=2)


@pytest.mark.parametrize("library", sorted(RUNNERS))
def test_a_graph_of_two_tensors_agrees_in_every_library(library: str) -> None:
    piece, inputs = two_inputs(), [random(1, *PICTURE), random(1, 6, 8)]
    found = open_runner(library, piece)(inputs)
    for one, other in zip(found, open_runner("onnxruntime", piece)(inputs), strict=True):
        assert_agrees(one, other)


def test_a_batch_runs_at_once_where_that_gives_the_same() -> None:
    piece = two_inputs()
    module, inputs = TorchPiece(piece), [torch.from_numpy(random(5, *PICTURE)), torch.from_numpy(random(5, 6, 8))]
    assert module.batches
    single = [module([tensor[row : row + 1] for tensor in inputs]) for row in range(5)]
    for found, *rows in zip(module(inputs), *single, strict=True):
        assert_agrees(found.numpy(), torch.cat(rows).numpy())


@pytest.mark.parametrize(
    "case", [("Squeeze", {}, [ints(0)]), ("Reshape", {}, [ints(C, H * W)]), ("ReduceMean", {}, [ints(0)])]
)
def test_what_mixes_samples_runs_one_by_one(case: Case) -> None:
    module = TorchPiece(piece_of_operator(case))
    x = torch.from_numpy(random(3, *PICTURE))
    assert not module.batches
    rows = torch.cat([module([x[row : row + 1]])[0] for row in range(3)])
    assert_agrees(module([x])[0].numpy(), rows.numpy())


def test_gradients_pass_through_a_piece_whose_weights_are_frozen() -> None:
    piece = two_inputs()
    with torch.inference_mode():  # as where an engine opens it
        module = TorchPiece(piece)
    x = torch.from_numpy(random(2, *PICTURE)).requires_grad_()
    sum(output.square().sum() for output in module([x, torch.from_numpy(random(2, 6, 8))])).backward()
    assert x.grad is not None
    assert x.grad.abs().sum() > 0
    assert not list(module.parameters())


def test_an_unknown_operator_is_named_with_the_way_out() -> None:
    nodes = [helper.make_node("Det", ["x"], ["y"], name="odd")]
    model = helper.make_model(graph_of(nodes, {"x": PICTURE}, ["y"], {}))
    with pytest.raises(UsageError, match=r"no operator Det \(node 'odd'\); use --engine onnxruntime"):
        TorchPiece(Piece(model.SerializeToString(), ("x",), (PICTURE,), ("y",), ((C,),), 0))


@pytest.mark.parametrize("library", ["onnxruntime", "openvino"])
def test_a_graph_that_a_library_refuses_is_one_line(library: str) -> None:
    with pytest.raises(FailureError, match="cannot run a piece of the model") as caught:
        open_runner(library, Piece(b"no graph", ("x",), (PICTURE,), ("y",), (PICTURE,), 0))
    assert "\n" not in str(caught.value)


def test_a_stage_of_a_copied_model_runs_in_another_library() -> None:
    piece = piece_of_operator(("Conv", {"pads": [1, 1, 1, 1]}, [CONV]))
    model = BranchyModel([ForeignStage([piece])], [nn.Flatten()], (1,), channels_last=False)
    x = torch.from_numpy(random(2, *PICTURE))
    expected = model.whole(x, 0)
    for library in RUNNERS:
        copied = run_by(library, copy.deepcopy(model))
        assert_agrees(copied.whole(x, 0).numpy(), expected.numpy())
    assert [stage.runner for stage in model.stages if isinstance(stage, ForeignStage)] == ["onnxruntime"]
