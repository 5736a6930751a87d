"""Cuts of a foreign model at several resolutions."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper
from support.onnx_models import image, save

from runtime.adoption.cutting import cut_model
from runtime.onnx_graphs.fixing import FixedGraph, fix_shape
from runtime.onnx_graphs.reading import read_model


def _example(px: int) -> NDArray[np.float32]:
    return np.random.default_rng(0).random((1, 3, px, px), np.float32)


def _graphs(path: Path, *, times_height: bool) -> dict[int, FixedGraph]:
    """The mean of each channel, mixed; the last part also knows the height of the picture."""
    nodes = [
        helper.make_node("GlobalAveragePool", ["x"], ["mean"]),
        helper.make_node("Conv", ["mean", "mix"], ["mixed"]),
        helper.make_node("Sigmoid", ["mixed"], ["squashed"]),
        helper.make_node("Conv", ["squashed", "mix"], ["last"]),
    ]
    weights = {"mix": np.linspace(-1, 1, 9, dtype=np.float32).reshape(3, 3, 1, 1), "two": np.array(2)}
    if times_height:
        nodes += [
            helper.make_node("Shape", ["x"], ["shape"]),
            helper.make_node("Gather", ["shape", "two"], ["height"]),
            helper.make_node("Cast", ["height"], ["factor"], to=TensorProto.FLOAT),
            helper.make_node("Mul", ["last", "factor"], ["output"]),
        ]
    else:
        nodes.append(helper.make_node("Identity", ["last"], ["output"]))
    save(path, nodes, [image(["n", 3, "h", "w"])], ["output"], weights)
    return {px: fix_shape(read_model(path), px, px) for px in (32, 16)}


@pytest.mark.parametrize("times_height", [False, True])
def test_no_cut_is_where_a_stage_cannot_tell_the_resolution(tmp_path: Path, times_height: bool) -> None:
    found = cut_model("model", _graphs(tmp_path / "m.onnx", times_height=times_height), _example)
    assert found.rows == ()
    assert found.error < 1e-6
    assert found.outputs == {32: ((3, 1, 1),), 16: ((3, 1, 1),)}
