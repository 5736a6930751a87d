"""The file of a model in 8 bits: a compressed graph for each stage, and the exit heads as plain weights.

Exit heads stay in float32. They cost little, and answers and calibrated confidence are made of their outputs.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
import zstandard
from safetensors.torch import load_file, save_file
from torch import Tensor

from runtime.bundles.packed_weights import WeightHeader, as_metadata
from runtime.models.graph_stage import GraphStage, StageGraph
from runtime.models.stages import BranchyModel
from runtime.models.widths import fit_widths

_LEVEL = 19
_MOST_BYTES = 1 << 28  # of one graph
_EXITS = "exits."


def save_graphs(path: Path, graphs: list[StageGraph], model: BranchyModel, header: WeightHeader) -> None:
    """Write the graphs of all stages, and the exit heads of the model that they were made from."""
    tensors = {name: value for name, value in model.state_dict().items() if name.startswith(_EXITS)}
    stored = {
        name: value.half() if value.is_floating_point() and value.ndim > 1 else value for name, value in tensors.items()
    }
    for number, graph in enumerate(graphs):
        stored[f"stages.{number}.xml"] = _compressed(graph.xml)
        stored[f"stages.{number}.weights"] = _compressed(graph.weights)
    save_file({name: value.contiguous() for name, value in stored.items()}, path, as_metadata(header))


def load_graphs(path: Path, family: BranchyModel, header: WeightHeader) -> BranchyModel:
    """The model, built from a new one of its family; KeyError, ValueError or RuntimeError when it does not fit."""
    stored = load_file(path)
    exits = {
        name.removeprefix(_EXITS): value.float() if value.is_floating_point() else value
        for name, value in stored.items()
        if name.startswith(_EXITS)
    }
    if header.pruned:
        fit_widths(family.exits, {name: tuple(value.shape) for name, value in exits.items()})
    family.exits.load_state_dict(exits)
    stages = [
        GraphStage(
            StageGraph(*(_expanded(stored[f"stages.{number}.{part}"]) for part in ("xml", "weights"))),
            f"stage {number} of {path.name}",
        )
        for number in range(header.graphs)
    ]
    return BranchyModel(stages, list(family.exits), family.exit_after)


def _compressed(data: bytes) -> Tensor:
    packed = zstandard.ZstdCompressor(level=_LEVEL).compress(data)
    return torch.from_numpy(np.frombuffer(packed, np.uint8).copy())


def _expanded(packed: Tensor) -> bytes:
    data = packed.numpy().tobytes()
    try:
        size = zstandard.frame_content_size(data)
        if not 0 <= size <= _MOST_BYTES:
            raise ValueError(f"a graph of {size} bytes; expected at most {_MOST_BYTES}")
        return zstandard.ZstdDecompressor().decompress(data, max_output_size=size)
    except zstandard.ZstdError as error:
        raise ValueError(f"a graph that does not decompress: {error}") from None
