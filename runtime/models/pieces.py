"""A foreign model cut into pieces: one ONNX graph for each stage and resolution.

A foreign model is one that was made elsewhere and is not built by mecpilot's own modules. ``runtime.onnx_graphs`` makes
the pieces, ``runtime.bundles.pieces_file`` stores them, ``runtime.models.foreign_stage`` runs them.
"""

from __future__ import annotations

from dataclasses import dataclass

from runtime.models.packing import Shapes


@dataclass(frozen=True)
class Piece:
    """One stage at one resolution, as an ONNX graph with weights. Shapes leave out the batch, which is one."""

    graph: bytes
    inputs: tuple[str, ...]  # names of the tensors that cross the cut before it
    input_shapes: Shapes
    outputs: tuple[str, ...]  # of the tensors that cross the cut after it
    output_shapes: Shapes
    macs: int  # multiply-accumulates of one run
