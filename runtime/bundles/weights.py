"""Read and write weights as safetensors: matrices and kernels in float16 or few bits, norms and biases in float32.

Accuracy is measured with the stored weights, so the accuracy in the manifest is that of the file. Weights of few bits
are packed in the file and float32 once they are loaded: they save download, not time.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import MappingProxyType

import torch
from msgspec.structs import replace
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from controller.errors import FailureError
from runtime.bundles.graph_file import load_graphs
from runtime.bundles.packed_weights import PLAIN, WeightHeader, as_metadata, pack, read_header, unpack
from runtime.bundles.pieces_file import attach_pieces
from runtime.models.folding import fold_for_inference
from runtime.models.stages import BranchyModel
from runtime.models.widths import fit_widths

Build = Callable[[str], BranchyModel]  # returns a new model of a family: `Models.build` of a workload


def save_weights(
    model: BranchyModel,
    path: Path,
    *,
    bits: Mapping[str, int] = MappingProxyType({}),
    header: WeightHeader = PLAIN,
) -> None:
    """Write the weights of a trained model, before folding.

    ``bits``: of the weights that are packed, by name. ``header``: what else differs from plain weights of the family.
    """
    tensors, packed = pack(model.state_dict(), bits)
    stored = {
        name: value.half() if value.is_floating_point() and value.ndim > 1 else value for name, value in tensors.items()
    }
    save_file(
        {name: value.contiguous() for name, value in stored.items()}, path, as_metadata(replace(header, packed=packed))
    )


def load_weights(path: Path, build: Build, family: str) -> BranchyModel:
    """The trainable model in float32; FailureError when the file does not fit the family.

    Stages that are pieces of a foreign model run, but are not trained.
    """
    with _fitting(path, family):
        header = read_header(path)
        if header.graphs:
            raise ValueError("its stages are in 8 bits and cannot be trained; expected weights")
        model = build(family)
        stored = load_file(path)
        if header.pieces:
            stored = attach_pieces(model, stored, header.pieces)
        state = {name: _as_float32(value) for name, value in unpack(stored, header.packed).items()}
        if header.pruned:
            fit_widths(model, {name: tuple(value.shape) for name, value in state.items()})
        model.load_state_dict(state)
    return model


@contextmanager
def _fitting(path: Path, family: str) -> Iterator[None]:
    """FailureError for whatever goes wrong in the block."""
    try:
        yield
    except (OSError, SafetensorError, RuntimeError, KeyError, ValueError) as error:
        reason = " ".join(str(error).split())[:200]
        raise FailureError(f"{path} does not hold the weights of a {family}: {reason}") from None


def _as_float32(value: torch.Tensor) -> torch.Tensor:
    return value.float() if value.is_floating_point() else value


def load_for_inference(path: Path, build: Build, family: str, exit_after: tuple[int, ...]) -> BranchyModel:
    """The folded copy for inference; FailureError when its exits are not those that the manifest states."""
    with _fitting(path, family):
        header = read_header(path)
        model = load_graphs(path, build(family), header) if header.graphs else load_weights(path, build, family)
    if model.exit_after != exit_after:
        raise FailureError(f"{path}: {family} has exits after {model.exit_after}, but the manifest states {exit_after}")
    return fold_for_inference(model)
