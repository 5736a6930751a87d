"""The table of layer kinds: the PyTorch modules that count as layers, with the regressors of Edgent's latency models.

Edgent (Li et al., 2019, Table I) predicts the latency of a layer from these regressors: convolution - size of the input
and (kernel/stride)^2 * filters; ReLU and normalisation - input size; pooling and fully-connected - input and output
size. Sizes are in elements, for a batch of one. Modules that the table does not name are containers, or compute nothing
themselves. A network with another kind of layer needs another row here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from runtime.models.detector_parts import Peaks
from runtime.models.foreign_stage import ForeignStage
from runtime.models.graph_stage import GraphStage
from runtime.models.layers import Layer, LayerInfo
from runtime.models.pixel_encoder import CompiledPixelEncoder, Pixels
from runtime.models.stages import Residual

Describe = Callable[[Any, Tensor, Tensor], LayerInfo]


def _conv(layer: nn.Conv2d, x: Tensor, output: Tensor) -> LayerInfo:
    per_filter = (layer.kernel_size[0] / layer.stride[0]) * (layer.kernel_size[1] / layer.stride[1])
    macs = output.shape[-1] * output.shape[-2] * layer.weight.numel()
    kind = "depthwise" if layer.groups == layer.in_channels and layer.groups > 1 else "conv"
    return LayerInfo(kind, (float(x.numel()), per_filter * layer.out_channels), macs)


def _pixel_encoder(layer: CompiledPixelEncoder, x: Tensor, output: Tensor) -> LayerInfo:
    first, second = layer.weight_counts
    places = output.shape[-1] * output.shape[-2]
    return LayerInfo("encoder", (float(x.numel()), float(output.numel())), places * (4 * first + second))


def _linear(layer: nn.Linear, x: Tensor, output: Tensor) -> LayerInfo:
    return LayerInfo("fc", (float(x.numel()), float(output.numel())), layer.weight.numel())


def _foreign_stage(layer: ForeignStage, x: Tensor, output: Tensor) -> LayerInfo:
    macs = layer.macs_of(tuple(x.shape[1:]))
    return LayerInfo("foreign stage", (float(x.numel()), float(output.numel())), macs)


def _graph_stage(layer: GraphStage, x: Tensor, output: Tensor) -> LayerInfo:
    return LayerInfo(f"{layer.bits} stage", (float(x.numel()), float(output.numel())), 0)


def _by_both_sizes(kind: str) -> Describe:
    return lambda _, x, output: LayerInfo(kind, (float(x.numel()), float(output.numel())), 0)


def _by_input_size(kind: str) -> Describe:
    return lambda _, x, output: LayerInfo(kind, (float(x.numel()),), 0)


_KINDS: tuple[tuple[type[nn.Module], Describe], ...] = (
    (nn.Conv2d, _conv),
    (nn.Linear, _linear),
    (nn.MaxPool2d, _by_both_sizes("pool")),
    (nn.AdaptiveAvgPool2d, _by_both_sizes("pool")),
    (nn.Upsample, _by_both_sizes("resize")),
    (nn.PixelShuffle, _by_both_sizes("resize")),
    (nn.ReLU, _by_input_size("relu")),
    (CompiledPixelEncoder, _pixel_encoder),
    (ForeignStage, _foreign_stage),
    (GraphStage, _graph_stage),
    (nn.BatchNorm2d, _by_input_size("norm")),
    (Pixels, _by_input_size("norm")),
    (Residual, _by_input_size("add")),
    (Peaks, _by_input_size("peaks")),
)


@contextmanager
def recorded_layers(module: nn.Module) -> Iterator[list[Layer]]:
    """Collect every layer of the module that runs inside the block, in order of completion."""
    layers: list[Layer] = []

    def record(describe: Describe, layer: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        layers.append(Layer(describe(layer, inputs[0], output), _call_of(layer, inputs[0], output)))

    hooks = [
        part.register_forward_hook(partial(record, describe))
        for part in module.modules()
        if (describe := _description_of(part)) is not None
    ]
    try:
        yield layers
    finally:
        for hook in hooks:
            hook.remove()


def _description_of(module: nn.Module) -> Describe | None:
    return next((describe for kind, describe in _KINDS if isinstance(module, kind)), None)


def _call_of(layer: nn.Module, x: Tensor, output: Tensor) -> Callable[[], Any]:
    if isinstance(layer, Residual):  # time only the addition; the branches are layers of their own
        return partial(torch.add, output, output)
    return partial(layer, x)
