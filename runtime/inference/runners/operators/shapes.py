"""Operators that move values or make shapes. A leading 1 of a stated shape is the batch, which may be larger."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from runtime.inference.runners.operators.node import Node, Operator, beside, ints, stated_ints, together


def _reshape(node: Node, x: Tensor, shape: Tensor | None = None) -> Tensor:
    wanted = stated_ints(node, "shape", shape) or []
    if not node.get("allowzero", 0):
        wanted = [x.shape[place] if size == 0 else size for place, size in enumerate(wanted)]
    stands_for_batch = bool(wanted) and wanted[0] == 1 and x.ndim > 0 and x.shape[0] > 1
    if stands_for_batch and (-1 in wanted or math.prod(wanted) != x.numel()):
        wanted[0] = x.shape[0]
    return x.reshape(wanted)


def _flatten(node: Node, x: Tensor) -> Tensor:
    axis = node.get("axis", 1)
    axis = axis + x.ndim if axis < 0 else axis
    return x.reshape(math.prod(x.shape[:axis]), -1)


def _transpose(node: Node, x: Tensor) -> Tensor:
    return x.permute(list(node.get("perm", range(x.ndim - 1, -1, -1))))


def _squeeze(node: Node, x: Tensor, axes: Tensor | None = None) -> Tensor:
    stated = stated_ints(node, "axes", axes)
    if stated is None:
        return x.squeeze()
    if any(x.shape[axis] != 1 for axis in stated):
        raise ValueError(f"{node.name}: an axis of {tuple(x.shape)} that is not 1")
    return x.squeeze(tuple(stated))


def _unsqueeze(node: Node, x: Tensor, axes: Tensor | None = None) -> Tensor:
    stated = stated_ints(node, "axes", axes) or []
    ndim = x.ndim + len(stated)
    for axis in sorted(axis % ndim for axis in stated):
        x = x.unsqueeze(axis)
    return x


def _concat(node: Node, *tensors: Tensor) -> Tensor:
    return torch.cat(together(*tensors), node.get("axis", 0))


def _split(node: Node, x: Tensor, split: Tensor | None = None) -> tuple[Tensor, ...]:
    axis, sizes = node.get("axis", 0), stated_ints(node, "split", split)
    if sizes is None:
        parts = node.get("num_outputs", len(node.outputs))
        return tuple(torch.split(x, math.ceil(x.shape[axis] / parts), axis))
    return tuple(torch.split(x, sizes, axis))


def _slice(
    node: Node,
    x: Tensor,
    starts: Tensor | None = None,
    ends: Tensor | None = None,
    axes: Tensor | None = None,
    steps: Tensor | None = None,
) -> Tensor:
    begin, end = stated_ints(node, "starts", starts) or [], stated_ints(node, "ends", ends) or []
    on = stated_ints(node, "axes", axes) or list(range(len(begin)))
    by = [1] * len(begin) if steps is None else ints(steps)
    for first, last, axis, step in zip(begin, end, on, by, strict=True):
        places = range(*slice(first, last, step).indices(x.shape[axis]))
        if step > 0:
            index: list[Any] = [slice(None)] * x.ndim
            index[axis] = slice(places.start, places.stop, step)
            x = x[tuple(index)]
        else:
            x = x.index_select(axis, torch.tensor(places, device=x.device, dtype=torch.int64))
    return x


def _gather(node: Node, x: Tensor, places: Tensor) -> Tensor:
    axis = node.get("axis", 0) % x.ndim
    at = beside(places, x).long()
    at = torch.where(at < 0, at + x.shape[axis], at)
    found = x.index_select(axis, at.flatten())
    return found.reshape(*x.shape[:axis], *places.shape, *x.shape[axis + 1 :])


def _gather_elements(node: Node, x: Tensor, places: Tensor) -> Tensor:
    axis = node.get("axis", 0) % x.ndim
    at = beside(places, x).long()
    return x.gather(axis, torch.where(at < 0, at + x.shape[axis], at))


def _expand(_: Node, x: Tensor, shape: Tensor) -> Tensor:
    sizes: list[int] = list(np.broadcast_shapes(tuple(x.shape), tuple(ints(shape))))
    return x.expand(sizes)


def _tile(_: Node, x: Tensor, repeats: Tensor) -> Tensor:
    return x.repeat(ints(repeats))


def _pad(
    node: Node, x: Tensor, pads: Tensor | None = None, value: Tensor | None = None, axes: Tensor | None = None
) -> Tensor:
    stated = stated_ints(node, "pads", pads) or []
    on = list(range(x.ndim)) if axes is None else [axis % x.ndim for axis in ints(axes)]
    around = [(0, 0)] * x.ndim
    for place, axis in enumerate(on):
        around[axis] = (stated[place], stated[place + len(on)])
    mode = node.text("mode", "constant")
    last_first = [size for pair in reversed(around) for size in pair]
    if mode == "constant":
        return F.pad(x, last_first, value=node.get("value", 0.0) if value is None else value.item())
    if mode not in ("reflect", "edge") or x.ndim < 3 or any(map(any, around[:2])):
        raise node.unsupported(f"mode {mode} on other axes than those of a picture")
    return F.pad(x, last_first[: 2 * (x.ndim - 2)], mode="replicate" if mode == "edge" else "reflect")


def _shape(node: Node, x: Tensor) -> Tensor:
    return torch.tensor(x.shape[node.get("start", 0) : node.get("end", None)], dtype=torch.int64)


def _constant_of_shape(node: Node, shape: Tensor) -> Tensor:
    value = node.get("value", None)
    return torch.zeros(ints(shape)) if value is None else value.reshape(()).expand(ints(shape)).clone()


def _range(_: Node, start: Tensor, stop: Tensor, step: Tensor) -> Tensor:
    return torch.arange(start.item(), stop.item(), step.item(), dtype=start.dtype)


def _depth_to_space(node: Node, x: Tensor) -> Tensor:
    size = node.get("blocksize", 1)
    n, c, h, w = x.shape
    if node.text("mode", "DCR") == "CRD":
        return F.pixel_shuffle(x, size)
    blocks = x.reshape(n, size, size, c // size**2, h, w).permute(0, 3, 4, 1, 5, 2)
    return blocks.reshape(n, c // size**2, h * size, w * size)


def _space_to_depth(node: Node, x: Tensor) -> Tensor:
    size = node.get("blocksize", 1)
    n, c, h, w = x.shape
    blocks = x.reshape(n, c, h // size, size, w // size, size).permute(0, 3, 5, 1, 2, 4)
    return blocks.reshape(n, c * size**2, h // size, w // size)


SHAPES: dict[str, Operator] = {
    "Reshape": _reshape,
    "Flatten": _flatten,
    "Transpose": _transpose,
    "Squeeze": _squeeze,
    "Unsqueeze": _unsqueeze,
    "Concat": _concat,
    "Split": _split,
    "Slice": _slice,
    "Gather": _gather,
    "GatherElements": _gather_elements,
    "Expand": _expand,
    "Tile": _tile,
    "Pad": _pad,
    "Shape": _shape,
    "Size": lambda _, x: torch.tensor(x.numel()),
    "ConstantOfShape": _constant_of_shape,
    "Range": _range,
    "DepthToSpace": _depth_to_space,
    "SpaceToDepth": _space_to_depth,
}
