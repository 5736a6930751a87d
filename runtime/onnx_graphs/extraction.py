"""Cut a fixed graph into pieces, and compare the pieces with the whole."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from runtime.models.packing import Shape
from runtime.models.pieces import Piece
from runtime.onnx_graphs.cuts import Cut, cut_through
from runtime.onnx_graphs.fixing import IMAGE, FixedGraph
from runtime.onnx_graphs.library import FLOAT, onnx_library, open_session

#: Ends of the names of tensors that reach or leave a piece in another form than they have in the graph.
_RECEIVED, _SENT = "/received", "/sent"
_SIZE = "mecpilot/input_size"  # name of the output of `with_size`


def cut_into_pieces(fixed: FixedGraph, cuts: Sequence[Cut]) -> list[Piece]:
    """The pieces between the cuts, one more than there are cuts, in the order in which they run.

    The first takes the image, the last gives the outputs of the model. All tensors between pieces and all outputs are
    float32 (1, ...): a tensor whose first dimension is not one gets another in front, other dtypes are converted.
    The cuts may be those of the model at another resolution. ValueError for one that this graph does not have.
    """
    extractor = onnx_library().utils.Extractor(fixed.proto)
    places = [(IMAGE,), *(cut.tensors for cut in cuts), fixed.outputs]
    macs = [0, *(_macs_before(fixed, cut) for cut in cuts), fixed.flow.macs]
    return [
        _piece(fixed, extractor, before, after, high - low)
        for (before, after), (low, high) in zip(pairwise(places), pairwise(macs), strict=True)
    ]


def largest_error(whole: FixedGraph, pieces: Sequence[Piece], images: Iterable[NDArray[np.float32]]) -> float:
    """Largest difference between the outputs of the pieces in sequence and of the whole.

    It is relative to the range of each output, or to its largest magnitude where that is more. Head and tail of every
    cut are these pieces, so one run tests all cuts.
    """
    sessions = [(piece, open_session(piece.graph)) for piece in pieces]
    largest = 0.0
    for image in images:
        tensors = [image]
        for piece, session in sessions:
            tensors = session.run(list(piece.outputs), dict(zip(piece.inputs, tensors, strict=True)))
        largest = float(np.maximum(largest, difference(whole.run(image), tensors)))
    return largest


def difference(expected: Sequence[NDArray[Any]], found: Sequence[NDArray[np.float32]]) -> float:
    """The largest difference of two lists of outputs, relative as in `largest_error`; NaN where one is found."""
    return float(np.max([_error(*pair) for pair in zip(expected, found, strict=True)]))


def with_size(piece: Piece, size: tuple[int, int]) -> Piece:
    """The same piece with height and width of the image as one more output, float32 (1, 2)."""
    onnx = onnx_library()
    model = onnx.load_from_string(piece.graph)
    value = onnx.numpy_helper.from_array(np.array([size], np.float32), _SIZE + "/value")
    model.graph.initializer.append(value)
    model.graph.node.append(onnx.helper.make_node("Identity", [value.name], [_SIZE]))
    model.graph.output.append(onnx.helper.make_tensor_value_info(_SIZE, FLOAT, (1, 2)))
    return replace(
        piece,
        graph=model.SerializeToString(),
        outputs=(*piece.outputs, _SIZE),
        output_shapes=(*piece.output_shapes, (2,)),
    )


def _error(expected: NDArray[Any], found: NDArray[np.float32]) -> float:
    wanted = expected.astype(np.float64).ravel()
    scale = max(float(np.ptp(wanted)), float(np.abs(wanted).max()), float(np.finfo(np.float32).tiny))
    return float(np.abs(wanted - found.ravel()).max()) / scale


def _macs_before(fixed: FixedGraph, cut: Cut) -> int:
    own = cut_through(fixed.flow, cut.tensors)
    if own is None:
        raise ValueError(f"a graph for {fixed.input_shape} has no cut through {', '.join(cut.tensors)}")
    return own.macs_before


def _piece(fixed: FixedGraph, extractor: Any, before: tuple[str, ...], after: tuple[str, ...], macs: int) -> Piece:
    # An extractor cannot name an input as an output, so what passes through unchanged is added behind it.
    model = extractor.extract_model(list(before), [name for name in after if name not in before])
    del model.graph.value_info[:]
    inputs = tuple(_received(model, name, fixed.shapes[name]) for name in before)
    outputs = tuple(_sent(model, name, fixed.shapes[name], through=name in before) for name in after)
    return Piece(
        model.SerializeToString(),
        inputs,
        tuple(_as_one(fixed.shapes[name])[1:] for name in before),
        outputs,
        tuple(_as_one(fixed.shapes[name])[1:] for name in after),
        macs,
    )


def _as_one(shape: Shape) -> Shape:
    """The shape in which a tensor travels: its first dimension is one."""
    return shape if shape[:1] == (1,) else (1, *shape)


def _received(model: Any, name: str, shape: Shape) -> str:
    """The input of a piece that gives a tensor of the graph, which is the tensor where its shape allows."""
    if _as_one(shape) == shape:
        return name
    helper, graph = onnx_library().helper, model.graph
    given = next(value for value in graph.input if value.name == name)
    graph.input.remove(given)
    graph.input.append(helper.make_tensor_value_info(name + _RECEIVED, FLOAT, _as_one(shape)))
    graph.node.insert(0, _reshape(model, name + _RECEIVED, name, shape))
    return name + _RECEIVED


def _sent(model: Any, name: str, shape: Shape, *, through: bool) -> str:
    """The output of a piece that holds a tensor of the graph, which is the tensor where its form allows."""
    helper, graph = onnx_library().helper, model.graph
    given = next((value for value in graph.output if value.name == name), None)
    converted = given is not None and given.type.tensor_type.elem_type != FLOAT
    if not through and not converted and _as_one(shape) == shape:
        return name
    sent = name + _SENT
    if given is not None:
        graph.output.remove(given)
    graph.output.append(helper.make_tensor_value_info(sent, FLOAT, _as_one(shape)))
    if _as_one(shape) == shape:
        graph.node.append(helper.make_node("Cast", [name], [sent], to=FLOAT))
        return sent
    graph.node.append(helper.make_node("Cast", [name], [sent + "/float32"], to=FLOAT))
    graph.node.append(_reshape(model, sent + "/float32", sent, _as_one(shape)))
    return sent


def _reshape(model: Any, given: str, result: str, shape: Shape) -> Any:
    onnx = onnx_library()
    target = onnx.numpy_helper.from_array(np.array(shape, np.int64), result + "/shape")
    model.graph.initializer.append(target)
    return onnx.helper.make_node("Reshape", [given, target.name], [result])
