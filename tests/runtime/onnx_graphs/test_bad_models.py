"""What is wrong with a model is said in one line, with the way out."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper
from support.onnx_models import convolution, image, save

from controller.errors import FailureError, MecpilotError, UsageError
from runtime.onnx_graphs.exporting import export_module, is_module_name, load_module
from runtime.onnx_graphs.fixing import fix_shape
from runtime.onnx_graphs.reading import read_model
from runtime.onnx_graphs.sizes import possible_sizes


def refused(action: Callable[[], object], kind: type[MecpilotError] = UsageError) -> str:
    with pytest.raises(kind) as caught:
        action()
    text = str(caught.value)
    assert "\n" not in text
    assert len(text) < 600
    return text


def relu(path: Path, shape: list[object], dtype: int = TensorProto.FLOAT) -> Path:
    return save(path, [helper.make_node("Relu", ["x"], ["y"])], [image(shape, dtype)], ["y"])


def test_no_file(tmp_path: Path) -> None:
    assert "No such file" in refused(lambda: read_model(tmp_path / "absent.onnx"))
    assert "not a file" in refused(lambda: read_model(tmp_path))


@pytest.mark.parametrize("content", [b"", b"\x00" * 100, b"PNG of a cat", b"\x08\x08", b"{}"])
def test_not_a_model(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "m.onnx"
    path.write_bytes(content)
    assert "expected an ONNX model" in (text := refused(lambda: read_model(path))) or "not an ONNX model" in text


def test_a_file_cut_short(tmp_path: Path) -> None:
    whole = convolution(tmp_path / "m.onnx").read_bytes()
    path = tmp_path / "short.onnx"
    for length in range(0, len(whole) - 1, 7):
        path.write_bytes(whole[:length])
        refused(lambda: read_model(path))


def test_missing_external_data(tmp_path: Path) -> None:
    proto = onnx.load(convolution(tmp_path / "m.onnx"))
    onnx.save_model(proto, tmp_path / "e.onnx", save_as_external_data=True, location="w.bin", size_threshold=0)
    assert read_model(tmp_path / "e.onnx").image.channels == 3
    (tmp_path / "w.bin").unlink()
    assert "'w.bin'" in refused(lambda: read_model(tmp_path / "e.onnx"))


def test_versions_that_are_too_new(tmp_path: Path) -> None:
    assert "opset" in refused(lambda: read_model(convolution(tmp_path / "a.onnx", opset=99)), FailureError)
    assert "IR version 99" in refused(lambda: read_model(convolution(tmp_path / "b.onnx", ir_version=99)), FailureError)


def test_operators_of_others(tmp_path: Path) -> None:
    nodes = [helper.make_node("Warp", ["x"], ["y"], domain="com.example")]
    path = save(tmp_path / "m.onnx", nodes, [image([1, 3, 8, 8])], ["y"], domains=("com.example",))
    assert "operator Warp of 'com.example'" in refused(lambda: read_model(path))
    path = save(tmp_path / "n.onnx", [helper.make_node("Warp", ["x"], ["y"])], [image([1, 3, 8, 8])], ["y"])
    assert "does not load" in refused(lambda: read_model(path))


@pytest.mark.parametrize("shape", [[1, 3, 8], [1, 7, 8, 8], [1, "c", "h", "w"], [1, 3, 8, 8, 8]])
def test_inputs_that_are_no_image(tmp_path: Path, shape: list[object]) -> None:
    assert "expected an image" in refused(lambda: read_model(relu(tmp_path / "m.onnx", shape)))


def test_inputs_of_other_dtypes_and_numbers(tmp_path: Path) -> None:
    path = relu(tmp_path / "m.onnx", [1, 3, 8, 8], TensorProto.DOUBLE)
    assert "expected an image" in refused(lambda: read_model(path))
    nodes = [helper.make_node("Add", ["x", "y"], ["z"])]
    path = save(tmp_path / "n.onnx", nodes, [image([1, 3, 8, 8]), image([1, 3, 8, 8], name="y")], ["z"])
    assert "2 inputs (x, y)" in refused(lambda: read_model(path))


def test_control_flow_names_its_operator(tmp_path: Path) -> None:
    def branch(op_type: str) -> onnx.GraphProto:
        node = helper.make_node(op_type, ["x"], [op_type])
        return helper.make_graph([node], op_type, [], [helper.make_tensor_value_info(op_type, TensorProto.FLOAT, None)])

    nodes = [
        helper.make_node("ReduceMax", ["x"], ["top"], keepdims=0),
        helper.make_node("Greater", ["top", "half"], ["bright"]),
        helper.make_node("If", ["bright"], ["y"], name="choose", then_branch=branch("Relu"), else_branch=branch("Neg")),
    ]
    path = save(tmp_path / "m.onnx", nodes, [image([1, 3, 8, 8])], ["y"], {"half": np.float32(0.5)})
    assert "'choose' is control flow (If)" in refused(lambda: fix_shape(read_model(path), 8, 8))


def test_outputs_whose_size_depends_on_the_image(tmp_path: Path) -> None:
    nodes = [helper.make_node("NonZero", ["x"], ["n"]), helper.make_node("Cast", ["n"], ["y"], to=TensorProto.FLOAT)]
    path = save(tmp_path / "m.onnx", nodes, [image([1, 3, 8, 8])], ["y"])
    assert "output 'y' depends on the image" in refused(lambda: fix_shape(read_model(path), 8, 8))


def test_a_size_that_the_model_does_not_take(tmp_path: Path) -> None:
    target = np.array([1, 3 * 24 * 24])
    nodes = [helper.make_node("Reshape", ["x", "s"], ["y"])]
    path = save(tmp_path / "m.onnx", nodes, [image([1, 3, "h", "w"])], ["y"], {"s": target})
    model = read_model(path)
    assert "does not take images of 30 x 30" in refused(lambda: fix_shape(model, 30, 30))
    assert fix_shape(model, 24, 24).output_shapes == ((1, 3 * 24 * 24),)
    assert "export it with a fixed input size" in refused(lambda: possible_sizes(model))


def test_outputs_that_are_not_numbers(tmp_path: Path) -> None:
    nodes = [helper.make_node("Sub", ["x", "one"], ["m"]), helper.make_node("Log", ["m"], ["y"])]
    path = save(tmp_path / "m.onnx", nodes, [image([1, 3, 8, 8])], ["y"], {"one": np.float32(1)})
    assert "output 'y' is not a number" in refused(lambda: fix_shape(read_model(path), 8, 8), FailureError)


def test_a_model_without_weights_works(tmp_path: Path) -> None:
    fixed = fix_shape(read_model(relu(tmp_path / "m.onnx", [1, 3, "h", "w"])), 8, 8)
    assert fixed.output_shapes == ((1, 3, 8, 8),)


MODULES = """
import torch
class Sorts(torch.nn.Module):
    def forward(self, x):
        return x if x.sum().item() > 0 else x * 2
def good(): return torch.nn.Conv2d(3, 4, 3)
def gray(): return torch.nn.Conv2d(1, 4, 3)
def fails(): raise ValueError("no weights here")
def number(): return 7
def branches(): return Sorts()
"""


@pytest.mark.parametrize(
    ("function", "expected"),
    [
        ("absent", "has no function 'absent'"),
        ("fails", "failed with ValueError: no weights here"),
        ("number", "gave int"),
        ("gray", "does not take images (1, 3, 16, 16)"),
    ],
)
def test_modules_that_are_none(tmp_path: Path, function: str, expected: str) -> None:
    (tmp_path / "m.py").write_text(MODULES)
    assert expected in refused(lambda: export_module(f"{tmp_path}/m.py:{function}", 3, 16, 16))


def test_modules_that_are_not_exported(tmp_path: Path) -> None:
    (tmp_path / "m.py").write_text(MODULES)
    text = refused(lambda: export_module(f"{tmp_path}/m.py:branches", 3, 16, 16), FailureError)
    assert "cannot be exported" in text


def test_a_module_may_use_dataclasses_and_what_stands_beside_it(tmp_path: Path) -> None:
    (tmp_path / "beside_it.py").write_text("from torch import nn\nNet = nn.ReLU\n")
    (tmp_path / "m.py").write_text(
        "from __future__ import annotations\nfrom dataclasses import dataclass\n\n"
        "@dataclass\nclass Size:\n    width: int\n\n"
        "def make():\n    from beside_it import Net\n    return Net()\n"
    )
    assert type(load_module(f"{tmp_path}/m.py:make")).__name__ == "ReLU"


def test_names_of_modules(tmp_path: Path) -> None:
    assert is_module_name("a/b.py:make")
    assert not any(map(is_module_name, ("a.onnx", "a.py", "a.py:", "c:a.onnx", "a.py:1")))
    assert "no such file" in refused(lambda: export_module(f"{tmp_path}/x.py:f", 3, 8, 8))
    (tmp_path / "broken.py").write_text("def f(:")
    assert "SyntaxError" in refused(lambda: export_module(f"{tmp_path}/broken.py:f", 3, 8, 8))
