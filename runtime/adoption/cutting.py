"""Fix the foreign model at every resolution, and cut it at the same places at all of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from controller.errors import FailureError
from runtime.adoption.report import CutRow
from runtime.models.foreign_stage import ForeignStage
from runtime.models.packing import Shapes, alike, unpack
from runtime.models.pieces import Piece
from runtime.onnx_graphs.cuts import Cut, choose_cuts, cut_through
from runtime.onnx_graphs.extraction import cut_into_pieces, difference, with_size
from runtime.onnx_graphs.fixing import FixedGraph

MOST_CUTS = 5
#: Share of the range of an output by which a model that was cut may differ from the whole. Float32 in another order.
TOLERANCE = 1e-4

Size = tuple[int, int]  # height, width
#: A picture of the footage as the model's input at a resolution: float32 (1, channels, h, w).
Example = Callable[[int], NDArray[np.float32]]


@dataclass(frozen=True)
class CutModel:
    """A foreign model in stages."""

    sizes: Mapping[int, Size]  # per resolution, largest first
    outputs: Mapping[int, Shapes]  # shapes of the model's outputs without the batch, per resolution
    stages: tuple[tuple[Piece, ...], ...]  # of each stage, its pieces at the resolutions
    rows: tuple[CutRow, ...]
    error: float  # largest difference to the whole model, as a share of the range of the outputs

    @property
    def macs_after_frac(self) -> dict[int, float]:
        """Share of the whole model's work after each cut; 0: the input."""
        return {0: 1.0} | {row.cut: 1.0 - row.device_macs_frac for row in self.rows}

    @property
    def macs(self) -> int:
        """Of the whole model at its largest resolution."""
        return sum(pieces[0].macs for pieces in self.stages)


def cut_model(
    name: str,
    graphs: Mapping[int, FixedGraph],
    example: Example,
    *,
    needs_size: bool = False,
    most: int = MOST_CUTS,
) -> CutModel:
    """Cut the graphs at the same places, and compare head and tail with the whole at each resolution.

    ``needs_size``: the decoder of the outputs needs the size of the image. The last pieces give it where the outputs
    look alike at several sizes. FailureError when they differ by more than `TOLERANCE`, or give numbers that are not
    finite.
    """
    chosen = choose_cuts([graph.flow for graph in graphs.values()], most)
    by_px = {px: cut_into_pieces(graph, _cuts_of(graph, chosen)) for px, graph in graphs.items()}
    whole = [ForeignStage(pieces) for pieces in _by_stage(by_px)]
    outputs = {px: pieces[-1].output_shapes for px, pieces in by_px.items()}
    error = float(np.max([_error(name, px, graphs[px], whole, outputs[px], example(px)) for px in graphs]))
    if not error <= TOLERANCE:
        raise FailureError(
            f"{name}: cut in pieces, it differs by {error:.1e} of the range of its outputs; expected {TOLERANCE:.0e}; "
            "try one width with --resolutions, or another export"
        )
    sizes = {px: (graph.input_shape[2], graph.input_shape[3]) for px, graph in graphs.items()}
    if needs_size and alike(outputs.values()):
        for px, pieces in by_px.items():
            pieces[-1] = with_size(pieces[-1], sizes[px])
    largest = max(graphs)
    rows = _rows(_cuts_of(graphs[largest], chosen))
    return CutModel(sizes, outputs, _by_stage(by_px), rows, error)


def _by_stage(by_px: Mapping[int, Sequence[Piece]]) -> tuple[tuple[Piece, ...], ...]:
    """Of each stage, its pieces at all resolutions."""
    return tuple(zip(*by_px.values(), strict=True))


def _cuts_of(graph: FixedGraph, chosen: Sequence[Cut]) -> list[Cut]:
    """The same cuts with the sizes and costs of another resolution."""
    found = [cut_through(graph.flow, cut.tensors) for cut in chosen]
    assert all(found), "a cut that is not at every resolution is not chosen"
    return [cut for cut in found if cut is not None]


@torch.inference_mode()
def _error(
    name: str,
    px: int,
    graph: FixedGraph,
    stages: Sequence[ForeignStage],
    outputs: Shapes,
    picture: NDArray[np.float32],
) -> float:
    """Largest difference of the stages in sequence to the whole; they choose their pieces by shape, as in service."""
    expected = graph.run(picture)
    _check_finite(name, px, expected)
    x = torch.from_numpy(picture)
    for stage in stages:
        x = stage(x)
    return difference(expected, unpack(x.numpy(), outputs))


def _check_finite(name: str, px: int, outputs: Sequence[NDArray[np.floating]]) -> None:
    if not all(np.isfinite(output).all() for output in outputs):
        raise FailureError(
            f"{name}: its outputs for a frame of the footage at {px} px are not finite (NaN or infinite); check "
            "--scale, --mean and --std, or the export"
        )


def _rows(cuts: Sequence[Cut]) -> tuple[CutRow, ...]:
    return tuple(
        CutRow(
            number,
            ", ".join(cut.tensors),
            len(cut.tensors),
            cut.size,
            cut.macs_before,
            cut.macs_before / max(cut.macs_before + cut.macs_after, 1),
        )
        for number, cut in enumerate(cuts, start=1)
    )
