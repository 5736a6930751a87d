"""What is in each stage? Shapes, multiply-accumulates, and the regressors of Edgent's latency models.

Everything is read off a real forward pass by hooks, so it holds for any module and any resolution. Edgent (Li et
al., 2019, Table I) predicts a layer's latency from: convolution - input feature maps and (kernel/stride)^2 * filters;
relu and normalisation - input size; pooling and fully-connected - input size and output size.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from runtime.models.detector_parts import Peaks
from runtime.models.stages import BranchyModel, Residual


@dataclass(frozen=True)
class LayerInfo:
    """One layer as a latency model sees it. Sizes are in elements, for a batch of one."""

    kind: str  # conv, depthwise, norm, relu, pool, fc, add, resize or peaks
    regressors: tuple[float, ...]  # of Edgent's table, for this kind
    macs: int
    input_size: int
    output_size: int


@dataclass(frozen=True)
class ModelLayers:
    """Layers of every stage and of every exit head, in the order they run."""

    stages: tuple[tuple[LayerInfo, ...], ...]
    exits: tuple[tuple[LayerInfo, ...], ...]
    stage_shapes: tuple[tuple[int, ...], ...]  # (channels, h, w) that each stage gives


@torch.no_grad()
def describe_layers(model: BranchyModel, example: Tensor) -> ModelLayers:
    """Describe a model (best its inference copy) on an example input of batch size 1."""
    stages, exits, shapes = [], [], []
    x = example
    for index, stage in enumerate(model.stages):
        with _recorded_layers(stage) as layers:
            x = model.run_stages(x, index, index + 1)
        stages.append(tuple(layers))
        shapes.append(tuple(x.shape[1:]))
        if index + 1 in model.exit_after:
            exit_head = model.exits[model.exit_after.index(index + 1)]
            with _recorded_layers(exit_head) as layers:
                exit_head(x)
            exits.append(tuple(layers))
    return ModelLayers(tuple(stages), tuple(exits), tuple(shapes))


@contextmanager
def _recorded_layers(module: nn.Module) -> Iterator[list[LayerInfo]]:
    """Collect what runs inside the block, in order of completion."""
    layers: list[LayerInfo] = []

    def record(layer: nn.Module, inputs: tuple[Any, ...], output: Tensor) -> None:
        info = _layer_info(layer, inputs[0], output)
        if info is not None:
            layers.append(info)

    hooks = [part.register_forward_hook(record) for part in module.modules()]
    try:
        yield layers
    finally:
        for hook in hooks:
            hook.remove()


def _layer_info(layer: nn.Module, x: Tensor, output: Tensor) -> LayerInfo | None:
    """None for containers and for layers that compute nothing."""
    sizes = (x.numel(), output.numel())
    if isinstance(layer, nn.Conv2d):
        per_filter = (layer.kernel_size[0] / layer.stride[0]) * (layer.kernel_size[1] / layer.stride[1])
        macs = output.shape[-1] * output.shape[-2] * layer.weight.numel()
        kind = "depthwise" if layer.groups == layer.in_channels and layer.groups > 1 else "conv"
        regressors = (float(sizes[0]), per_filter * layer.out_channels)
        return LayerInfo(kind, regressors, macs, *sizes)
    if isinstance(layer, nn.Linear):
        return LayerInfo("fc", (float(sizes[0]), float(sizes[1])), layer.weight.numel(), *sizes)
    if isinstance(layer, nn.MaxPool2d | nn.AdaptiveAvgPool2d):
        return LayerInfo("pool", (float(sizes[0]), float(sizes[1])), 0, *sizes)
    if isinstance(layer, nn.Upsample | nn.PixelShuffle):
        return LayerInfo("resize", (float(sizes[0]), float(sizes[1])), 0, *sizes)
    for kind, types in (("relu", nn.ReLU), ("norm", nn.BatchNorm2d), ("add", Residual), ("peaks", Peaks)):
        if isinstance(layer, types):
            return LayerInfo(kind, (float(sizes[0]),), 0, *sizes)
    return None
