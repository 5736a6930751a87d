"""Describe a model: shapes, layers and multiply-accumulates of every stage and exit head, from a real forward pass.

Hooks record the layers that run, so this works for any module and resolution.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from runtime.models.layer_kinds import recorded_layers
from runtime.models.layers import Layer, LayerInfo
from runtime.models.packing import Shapes
from runtime.models.stages import BranchyModel


@dataclass(frozen=True)
class ModelLayers:
    """Layers of every stage and of every exit head, in the order they run."""

    stages: tuple[tuple[LayerInfo, ...], ...]
    exits: tuple[tuple[LayerInfo, ...], ...]
    stage_shapes: tuple[tuple[int, ...], ...]  # of each stage's output, without the batch
    stage_parts: tuple[Shapes, ...]  # of the tensors that are packed into it; () for one tensor


@torch.no_grad()
def describe_layers(model: BranchyModel, example: Tensor) -> ModelLayers:
    """Describe a model on an example input (1, channels, h, w). Use the inference copy, whose norms are folded."""
    stages, exits, shapes, parts = [], [], [], []
    x = example
    for index, stage in enumerate(model.stages):
        with recorded_layers(stage) as layers:
            x = model.run_stages(x, index, index + 1)
        stages.append(_infos(layers))
        shapes.append(tuple(x.shape[1:]))
        parts.append(model.parts_at(index + 1, shapes[-1]))
        if index + 1 in model.exit_after:
            exit_head = model.exits[model.exit_after.index(index + 1)]
            with recorded_layers(exit_head) as layers:
                exit_head(x)
            exits.append(_infos(layers))
    return ModelLayers(tuple(stages), tuple(exits), tuple(shapes), tuple(parts))


def _infos(layers: list[Layer]) -> tuple[LayerInfo, ...]:
    return tuple(layer.info for layer in layers)
