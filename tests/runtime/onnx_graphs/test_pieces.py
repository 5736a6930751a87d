"""Models of several architectures, cut everywhere: the pieces in sequence equal the whole."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from numpy.typing import NDArray
from onnx import TensorProto, helper
from support.onnx_models import ARCHITECTURES, convolution, exported, image, pyramid, save, seeded

from runtime.inference.runners import open_runner
from runtime.models.foreign_stage import ForeignStage
from runtime.models.packing import packed_shape
from runtime.onnx_graphs.cuts import candidates, choose_cuts
from runtime.onnx_graphs.extraction import cut_into_pieces, largest_error, with_size
from runtime.onnx_graphs.fixing import fix_shape
from runtime.onnx_graphs.library import open_session
from runtime.onnx_graphs.reading import read_model
from runtime.onnx_graphs.sizes import possible_sizes

SIZE = (32, 48)


def picture(height: int, width: int, seed: int = 0) -> NDArray[np.float32]:
    return np.random.default_rng(seed).random((1, 3, height, width), np.float32)


@pytest.mark.parametrize("name", list(ARCHITECTURES))
def test_pieces_equal_the_whole_at_every_cut(name: str) -> None:
    fixed = fix_shape(exported(name), *SIZE)
    x = picture(*SIZE)
    expected = seeded(name)(torch.from_numpy(x)).detach().numpy()
    np.testing.assert_allclose(fixed.run(x)[0], expected, atol=1e-5 * float(np.ptp(expected)))
    assert {node.domain for node in fixed.proto.graph.node} <= {"", "ai.onnx"}
    found = candidates(fixed.flow)
    assert len(found) >= 4
    for cut in found:
        pieces = cut_into_pieces(fixed, [cut])
        assert largest_error(fixed, pieces, [x]) <= 2e-6, cut
        assert [piece.macs for piece in pieces] == [cut.macs_before, cut.macs_after]


@pytest.mark.parametrize("name", list(ARCHITECTURES))
def test_stages_run_all_pieces(name: str) -> None:
    fixed = fix_shape(exported(name), *SIZE)
    pieces = cut_into_pieces(fixed, candidates(fixed.flow))
    x = torch.from_numpy(np.concatenate([picture(*SIZE, seed) for seed in range(2)]))
    z = x
    for piece in pieces:
        z = ForeignStage([piece])(z)
        assert tuple(z.shape) == (2, *packed_shape(piece.output_shapes))
    for sample, found in zip(x.numpy(), z.numpy(), strict=True):
        np.testing.assert_allclose(fixed.run(sample[None])[0].ravel(), found.ravel(), atol=1e-5)


def test_the_pyramid_is_cut_past_its_backbone() -> None:
    fixed = fix_shape(exported("pyramid"), *SIZE)
    assert {len(cut.tensors) for cut in candidates(fixed.flow)} >= {1, 2}
    sizes = fixed.flow.sizes
    assert all(sizes[name] == 4 * np.prod(fixed.shapes[name]) for name in sizes)


def test_weights_are_in_one_piece_only() -> None:
    fixed = fix_shape(exported("residual"), *SIZE)
    pieces = cut_into_pieces(fixed, choose_cuts([fixed.flow]))
    names = [weight.name for piece in pieces for weight in onnx.load_from_string(piece.graph).graph.initializer]
    assert len(names) == len(set(names))


def test_macs_are_those_of_the_layers() -> None:
    fixed = fix_shape(exported("u-shaped"), *SIZE)
    places = SIZE[0] * SIZE[1]
    down = places * 27 * 4 + places // 4 * 36 * 8 + places // 16 * 72 * 8
    up = places // 16 * 8 * 8 * 4 + places // 4 * 16 * 4 * 4
    assert fixed.flow.macs == down + up + places * 8 * 2


def test_resolutions_have_the_same_cuts_and_weights(tmp_path: Path) -> None:
    model = read_model(pyramid(tmp_path / "m.onnx"))
    sizes = ((64, 96), (32, 32))
    graphs = [fix_shape(model, *size) for size in sizes]
    cuts = choose_cuts([fixed.flow for fixed in graphs])
    assert len(cuts) >= 3
    weights = []
    for fixed, size in zip(graphs, sizes, strict=True):
        pieces = cut_into_pieces(fixed, cuts)
        assert largest_error(fixed, pieces, [picture(*size)]) <= 2e-6
        assert sum(piece.macs for piece in pieces) == fixed.flow.macs
        assert all(piece.macs >= 0 for piece in pieces)
        weights.append(
            [weight.raw_data for piece in pieces for weight in onnx.load_from_string(piece.graph).graph.initializer]
        )
    assert weights[0] == weights[1]


def test_one_convolution_has_no_cut_worth_its_while(tmp_path: Path) -> None:
    fixed = fix_shape(read_model(convolution(tmp_path / "m.onnx")), 32, 32)
    assert choose_cuts([fixed.flow]) == []


def test_an_export_has_the_same_names_at_every_resolution() -> None:
    graphs = [fix_shape(exported("pyramid", *size), *size) for size in (SIZE, (16, 16))]
    assert len(choose_cuts([fixed.flow for fixed in graphs])) == len(choose_cuts([graphs[0].flow]))


@pytest.mark.parametrize("dtype", [TensorProto.FLOAT, TensorProto.UINT8, TensorProto.FLOAT16])
@pytest.mark.parametrize("layout", ["NCHW", "NHWC"])
def test_every_layout_and_dtype_takes_the_same_image(tmp_path: Path, layout: str, dtype: int) -> None:
    kind = TensorProto.FLOAT16 if dtype == TensorProto.FLOAT16 else TensorProto.FLOAT
    weights = {"w": np.linspace(-1, 1, 4 * 3 * 9).reshape(4, 3, 3, 3).astype(helper.tensor_dtype_to_np_dtype(kind))}
    nodes = [
        helper.make_node("Cast", ["x"], ["f"], to=kind),
        helper.make_node("Transpose", ["f"], ["t"], perm=[0, 3, 1, 2] if layout == "NHWC" else [0, 1, 2, 3]),
        helper.make_node("Conv", ["t", "w"], ["y"]),
        helper.make_node("Cast", ["y"], ["z"], to=TensorProto.FLOAT),
    ]
    shape = [1, 3, 8, 10] if layout == "NCHW" else [1, 8, 10, 3]
    model = read_model(save(tmp_path / "m.onnx", nodes, [image(shape, dtype)], ["z"], weights))
    assert (model.image.layout, model.image.height, model.image.width) == (layout, 8, 10)
    x = np.floor(picture(8, 10) * 255)
    given: Any = x if layout == "NCHW" else x.transpose(0, 2, 3, 1)
    expected = open_session(model.proto).run(None, {"x": given.astype(model.image.dtype)})[0]
    fixed = fix_shape(model, 8, 10)
    np.testing.assert_allclose(fixed.run(x)[0], expected, rtol=2e-3 if dtype == TensorProto.FLOAT16 else 1e-5)
    assert largest_error(fixed, cut_into_pieces(fixed, candidates(fixed.flow)), [x]) <= 1e-6


def test_outputs_of_other_dtypes_and_forms_are_float32_with_a_batch(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("GlobalAveragePool", ["x"], ["p"]),
        helper.make_node("ArgMax", ["p"], ["class"], axis=1, keepdims=0),
        helper.make_node("Squeeze", ["p"], ["scores"]),
    ]
    path = save(tmp_path / "m.onnx", nodes, [image([1, 3, 8, 8])], ["class", "scores"])
    proto = onnx.load(path)
    proto.graph.output[0].type.tensor_type.elem_type = TensorProto.INT64
    onnx.save(proto, path)
    fixed = fix_shape(read_model(path), 8, 8)
    (piece,) = cut_into_pieces(fixed, [])
    assert piece.output_shapes == ((1, 1), (3,))
    x = picture(8, 8)
    top, scores = open_runner("onnxruntime", piece)([x])
    assert top.dtype == np.float32
    np.testing.assert_allclose(scores[0], x.mean((0, 2, 3)), rtol=1e-5)
    assert top.item() == scores.argmax()


@pytest.mark.parametrize("runner", ["onnxruntime", "torch"])
def test_the_last_piece_can_give_the_size_of_the_image(tmp_path: Path, runner: str) -> None:
    fixed = fix_shape(read_model(convolution(tmp_path / "m.onnx")), *SIZE)
    (piece,) = cut_into_pieces(fixed, [])
    batch = np.concatenate([picture(*SIZE, seed) for seed in range(2)])
    plain = ForeignStage([piece], runner)(torch.from_numpy(batch)).flatten(1)
    sized = ForeignStage([with_size(piece, SIZE)], runner)(torch.from_numpy(batch))
    assert sized[:, -2:].tolist() == [list(SIZE)] * 2
    assert torch.equal(sized[:, :-2], plain)


def test_open_sizes_are_found_by_trying(tmp_path: Path) -> None:
    sizes = possible_sizes(read_model(convolution(tmp_path / "m.onnx")))
    assert (sizes.height.multiple, sizes.width.multiple) == (2, 2)
    fixed = possible_sizes(exported("residual"))
    assert (fixed.height.multiple, fixed.width.multiple) == (0, 0)
    assert (fixed.height.size, fixed.width.size) == SIZE
