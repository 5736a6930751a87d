"""Convolutions and pooling over one, two or three dimensions."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from runtime.inference.runners.operators.node import Node, Operator

Pads = list[tuple[int, int]]  # before and after, for each dimension of the picture

_CONV: dict[int, Any] = {1: F.conv1d, 2: F.conv2d, 3: F.conv3d}
_TRANSPOSED: dict[int, Any] = {1: F.conv_transpose1d, 2: F.conv_transpose2d, 3: F.conv_transpose3d}
_MAX: dict[int, Any] = {1: F.max_pool1d, 2: F.max_pool2d, 3: F.max_pool3d}
_AVERAGE: dict[int, Any] = {1: F.avg_pool1d, 2: F.avg_pool2d, 3: F.avg_pool3d}


def _conv(node: Node, x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    kernel = weight.shape[2:]
    strides, dilations = _of_each(node, "strides", kernel), _of_each(node, "dilations", kernel)
    x, padding = _padded(x, _pads(node, x, kernel, strides, dilations), 0.0)
    found: Tensor = _CONV[len(kernel)](x, weight, bias, strides, padding, dilations, node.get("group", 1))
    return found


def _conv_transpose(node: Node, x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    kernel = weight.shape[2:]
    if "output_shape" in node.attributes or node.text("auto_pad", "NOTSET") not in ("NOTSET", "VALID"):
        raise node.unsupported("a stated shape of its output")
    strides, dilations = _of_each(node, "strides", kernel), _of_each(node, "dilations", kernel)
    pads, more = _explicit_pads(node, kernel), list(node.get("output_padding", [0] * len(kernel)))
    even = all(before == after for before, after in pads)
    padding = [before for before, _ in pads] if even else [0] * len(kernel)
    run = _TRANSPOSED[len(kernel)]
    found: Tensor = run(x, weight, bias, strides, padding, more, node.get("group", 1), dilations)
    return found if even else F.pad(found, _reversed([(-before, -after) for before, after in pads]))


def _max_pool(node: Node, x: Tensor) -> Tensor:
    if len(node.outputs) > 1:
        raise node.unsupported("places of maxima as an output")
    kernel = list(node.get("kernel_shape", ()))
    strides, dilations = _of_each(node, "strides", kernel), _of_each(node, "dilations", kernel)
    pads = _pads(node, x, kernel, strides, dilations)
    if any(2 * max(pair) > size for pair, size in zip(pads, kernel, strict=True)):  # more than PyTorch pads
        x, pads = F.pad(x, _reversed(pads), value=-math.inf), [(0, 0)] * len(kernel)
    x, padding = _padded(x, pads, -math.inf)
    found: Tensor = _MAX[len(kernel)](x, kernel, strides, padding, dilations, bool(node.get("ceil_mode", 0)))
    return found


def _average_pool(node: Node, x: Tensor) -> Tensor:
    kernel = list(node.get("kernel_shape", ()))
    strides, dilations = _of_each(node, "strides", kernel), _of_each(node, "dilations", kernel)
    if any(dilation != 1 for dilation in dilations):
        raise node.unsupported("dilations")
    pads, run = _pads(node, x, kernel, strides, dilations), _AVERAGE[len(kernel)]
    ceil, count_padding = bool(node.get("ceil_mode", 0)), bool(node.get("count_include_pad", 0))
    if all(before == after and 2 * before <= size for (before, after), size in zip(pads, kernel, strict=True)):
        found: Tensor = run(x, kernel, strides, [before for before, _ in pads], ceil, count_padding)
        return found
    around = _reversed(pads)
    total: Tensor = run(F.pad(x, around), kernel, strides, 0, ceil)
    if count_padding:
        return total
    share: Tensor = run(F.pad(torch.ones_like(x), around), kernel, strides, 0, ceil)
    return total / share


def _global(compute: Any) -> Operator:
    return lambda _, x: compute(x, list(range(2, x.ndim)), keepdim=True)


def _of_each(node: Node, attribute: str, kernel: Sequence[int]) -> list[int]:
    return [int(value) for value in node.get(attribute, [1] * len(kernel))]


def _explicit_pads(node: Node, kernel: Sequence[int]) -> Pads:
    stated = node.get("pads", [0] * (2 * len(kernel)))
    return list(zip(map(int, stated[: len(kernel)]), map(int, stated[len(kernel) :]), strict=True))


def _pads(node: Node, x: Tensor, kernel: Sequence[int], strides: Sequence[int], dilations: Sequence[int]) -> Pads:
    how = node.text("auto_pad", "NOTSET")
    if how in ("NOTSET", ""):
        return _explicit_pads(node, kernel)
    if how == "VALID":
        return [(0, 0)] * len(kernel)
    pads = []
    for size, width, stride, dilation in zip(x.shape[2:], kernel, strides, dilations, strict=True):
        total = max(0, (math.ceil(size / stride) - 1) * stride + (width - 1) * dilation + 1 - size)
        less, more = total // 2, total - total // 2
        pads.append((less, more) if how == "SAME_UPPER" else (more, less))
    return pads


def _padded(x: Tensor, pads: Pads, value: float) -> tuple[Tensor, list[int]]:
    """The input, and the padding that PyTorch shall add: it only knows equal padding on both sides."""
    if all(before == after for before, after in pads):
        return x, [before for before, _ in pads]
    return F.pad(x, _reversed(pads), value=value), [0] * len(pads)


def _reversed(pads: Pads) -> list[int]:
    """In the order of `torch.nn.functional.pad`, the last dimension first."""
    return [value for pair in reversed(pads) for value in pair]


CONVOLUTIONS: dict[str, Operator] = {
    "Conv": _conv,
    "ConvTranspose": _conv_transpose,
    "MaxPool": _max_pool,
    "AveragePool": _average_pool,
    "GlobalAveragePool": _global(torch.mean),
    "GlobalMaxPool": _global(torch.amax),
}
