"""Give a model the widths of a pruned one: the channels of each layer, as the shapes of its weights state them."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import nn

Shape = tuple[int, ...]


def fit_widths(model: nn.Module, shapes: Mapping[str, Shape]) -> None:
    """Change the layers of a new model, or of a part of one, in place to the shapes of stored weights, by name.

    Only channels may differ. ValueError where kernels or kinds of layers do, KeyError where a shape is missing. The
    weights are undefined afterwards.
    """
    for name, layer in model.named_modules():
        if isinstance(layer, nn.Conv2d):
            _fit_conv(name, layer, shapes[f"{name}.weight"])
        elif isinstance(layer, nn.Linear):
            layer.out_features, layer.in_features = _sizes(name, shapes[f"{name}.weight"], 2)
        elif isinstance(layer, nn.BatchNorm2d):
            (layer.num_features,) = _sizes(name, shapes[f"{name}.weight"], 1)
        else:
            continue
        _resize(name, layer, shapes)


def _fit_conv(name: str, layer: nn.Conv2d, shape: Shape) -> None:
    outputs, inputs, *kernel = _sizes(name, shape, 4)
    if tuple(kernel) != layer.kernel_size:
        raise ValueError(f"{name} has a kernel of {tuple(kernel)}; expected {layer.kernel_size}")
    if layer.groups == layer.in_channels > 1:  # depthwise: a channel less is a group less
        layer.groups = outputs
    layer.in_channels, layer.out_channels = inputs * layer.groups, outputs


def _sizes(name: str, shape: Shape, dimensions: int) -> Shape:
    if len(shape) != dimensions or min(shape) < 1:
        raise ValueError(f"{name} has weights of shape {shape}; expected {dimensions} dimensions of at least 1")
    return shape


def _resize(name: str, layer: nn.Module, shapes: Mapping[str, Shape]) -> None:
    for key, parameter in layer.named_parameters(recurse=False):
        resized = torch.empty(shapes[f"{name}.{key}"])
        setattr(layer, key, nn.Parameter(resized, requires_grad=parameter.requires_grad))
    for key, buffer in layer.named_buffers(recurse=False):
        setattr(layer, key, torch.empty(shapes[f"{name}.{key}"], dtype=buffer.dtype))
