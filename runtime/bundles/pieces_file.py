"""The pieces of a foreign model in a file of weights, for all stages and resolutions.

    pieces.index            JSON: the pieces of every stage, see `PieceEntry`
    pieces.graph.NUMBER     a compressed ONNX graph, without its large weights
    pieces.weight.SHA256    the bytes of one weight; the pieces of all resolutions share it

The weights and graphs stay bit for bit what they were. The exit heads are in the same file, under their own names.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import torch
import zstandard
from msgspec.structs import replace
from numpy.typing import NDArray
from safetensors.torch import save_file
from torch import Tensor

from runtime.bundles.packed_weights import PLAIN, WeightHeader, as_metadata
from runtime.models.foreign_stage import ForeignStage
from runtime.models.packing import Shapes
from runtime.models.pieces import Piece
from runtime.models.stages import BranchyModel

_PREFIX = "pieces."
_INDEX = _PREFIX + "index"
_SMALL = 1024  # bytes; a weight up to this size stays in its graph
_MOST_PIECES = 256  # of a stage
_MOST_GRAPH_BYTES = 1 << 27  # of one graph without its large weights
_MOST_BYTES = 1 << 31  # of all graphs with their weights, as they are in memory
_LEVEL = 12


class PieceEntry(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One piece in the index of a file."""

    inputs: tuple[str, ...]
    input_shapes: Shapes
    outputs: tuple[str, ...]
    output_shapes: Shapes
    macs: int
    graph: int  # number of its graph in the file
    weights: dict[str, str]  # SHA-256 of each large weight, by its name in the graph


def save_pieces(path: Path, model: BranchyModel, header: WeightHeader = PLAIN) -> None:
    """Write a model with foreign stages: their pieces, and the weights of all other modules as `save_weights` does."""
    stages = foreign_stages(model)
    tensors = {
        name: value.half() if value.is_floating_point() and value.ndim > 1 else value
        for name, value in model.state_dict().items()
    }
    index = [[_store(piece, tensors) for piece in stage.pieces] for stage in stages]
    tensors[_INDEX] = _as_tensor(msgspec.json.encode(index))
    found = as_metadata(replace(header, pieces=len(stages)))
    save_file({name: value.contiguous() for name, value in tensors.items()}, path, found)


def attach_pieces(model: BranchyModel, tensors: dict[str, Tensor], count: int) -> dict[str, Tensor]:
    """Give the foreign stages of a model the pieces of a file; returns the tensors that are not part of pieces.

    ``count``: of foreign stages in the file. KeyError or ValueError when the file does not fit the model, or when its
    graphs would take more memory than any model has.
    """
    stages = foreign_stages(model)
    if len(stages) != count:
        raise ValueError(f"it has {count} foreign stages; expected {len(stages)}")
    index = _read_index(tensors[_INDEX])
    if len(index) != count or max(map(len, index), default=0) > _MOST_PIECES:
        raise ValueError(
            f"its index has pieces of {len(index)} stages; expected {count} with up to {_MOST_PIECES} each"
        )
    _check_memory(index, tensors)
    for stage, entries in zip(stages, index, strict=True):
        stage.attach(_load(entry, tensors) for entry in entries)
    return {name: value for name, value in tensors.items() if not name.startswith(_PREFIX)}


def foreign_stages(model: BranchyModel) -> list[ForeignStage]:
    """The stages of a model that are pieces of a foreign one, in the order in which they run."""
    return [module for module in model.modules() if isinstance(module, ForeignStage)]


def _store(piece: Piece, tensors: dict[str, Tensor]) -> PieceEntry:
    """Add the graph and the weights of a piece to the tensors of a file."""
    proto = _parsed(piece.graph)
    weights = {}
    for weight in proto.graph.initializer:
        if len(weight.raw_data) > _SMALL:
            digest = hashlib.sha256(weight.raw_data).hexdigest()
            weights[weight.name] = digest
            tensors.setdefault(f"{_PREFIX}weight.{digest}", _as_tensor(weight.raw_data))
            weight.ClearField("raw_data")
    number = sum(name.startswith(f"{_PREFIX}graph.") for name in tensors)
    packed = zstandard.ZstdCompressor(level=_LEVEL).compress(proto.SerializeToString())
    tensors[f"{_PREFIX}graph.{number}"] = _as_tensor(packed)
    return PieceEntry(piece.inputs, piece.input_shapes, piece.outputs, piece.output_shapes, piece.macs, number, weights)


def _load(entry: PieceEntry, tensors: dict[str, Tensor]) -> Piece:
    proto = _parsed(_expanded(_bytes(tensors[f"{_PREFIX}graph.{entry.graph}"])))
    _check_no_files(proto, entry.graph)
    missing = set(entry.weights) - {weight.name for weight in proto.graph.initializer}
    if missing:
        raise ValueError(f"graph {entry.graph} has no weight {min(missing)!r}")
    for weight in proto.graph.initializer:
        if weight.name in entry.weights:
            weight.raw_data = _bytes(tensors[f"{_PREFIX}weight.{entry.weights[weight.name]}"])
    return Piece(
        proto.SerializeToString(), entry.inputs, entry.input_shapes, entry.outputs, entry.output_shapes, entry.macs
    )


def _check_no_files(proto: Any, number: int) -> None:
    """A graph must not read weights from other files of this machine."""
    attributes = (attribute for node in proto.graph.node for attribute in node.attribute)
    tensors = (*proto.graph.initializer, *(attribute.t for attribute in attributes if attribute.HasField("t")))
    if any(tensor.external_data or tensor.data_location for tensor in tensors):
        raise ValueError(f"graph {number} has weights in other files")


def _read_index(tensor: Tensor) -> list[list[PieceEntry]]:
    try:
        return msgspec.json.decode(_bytes(tensor), type=list[list[PieceEntry]])
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise ValueError(f"its index of pieces is not valid: {error}") from None


def _check_memory(index: Iterable[Iterable[PieceEntry]], tensors: dict[str, Tensor]) -> None:
    """Before anything is allocated: a small file may name the same large weight many times."""
    total = 0
    for entry in (entry for entries in index for entry in entries):
        if any(size < 1 for shape in (*entry.input_shapes, *entry.output_shapes) for size in shape) or entry.macs < 0:
            raise ValueError(f"graph {entry.graph} has sizes below one")
        if len(entry.inputs) != len(entry.input_shapes) or len(entry.outputs) != len(entry.output_shapes):
            raise ValueError(f"graph {entry.graph} has other numbers of tensors than of shapes")
        total += _graph_size(_bytes(tensors[f"{_PREFIX}graph.{entry.graph}"]))
        total += sum(tensors[f"{_PREFIX}weight.{digest}"].nbytes for digest in entry.weights.values())
        total += 4 * max(math.prod(shape) for shape in (*entry.input_shapes, *entry.output_shapes))
    if total > _MOST_BYTES:
        raise ValueError(f"its pieces take {total} bytes; expected at most {_MOST_BYTES}")


def _graph_size(packed: bytes) -> int:
    try:
        size = zstandard.frame_content_size(packed)
    except zstandard.ZstdError as error:
        raise ValueError(f"a graph that does not decompress: {error}") from None
    if not 0 <= size <= _MOST_GRAPH_BYTES:
        raise ValueError(f"a graph of {size} bytes without its weights; expected at most {_MOST_GRAPH_BYTES}")
    return size


def _expanded(packed: bytes) -> bytes:
    try:
        return zstandard.ZstdDecompressor().decompress(packed, max_output_size=_graph_size(packed))
    except zstandard.ZstdError as error:
        raise ValueError(f"a graph that does not decompress: {error}") from None


def _parsed(graph: bytes) -> Any:
    from runtime.onnx_graphs.library import onnx_library, reason

    onnx = onnx_library()
    try:
        return onnx.load_model_from_string(graph)
    except Exception as error:  # noqa: BLE001 - protobuf's errors have no common base
        raise ValueError(f"a graph that is not ONNX: {reason(error)}") from None


def _as_tensor(data: bytes) -> Tensor:
    return torch.from_numpy(np.frombuffer(data, np.uint8).copy())


def _bytes(tensor: Tensor) -> bytes:
    if tensor.dtype != torch.uint8:
        raise ValueError(f"part of a piece is {tensor.dtype}; expected bytes")
    values: NDArray[np.uint8] = tensor.numpy()
    return values.tobytes()
