"""Resize and its predecessor Upsample, one axis after the other: nearest, linear and cubic.

Forms that PyTorch has itself take its faster way.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from runtime.inference.runners.operators.node import Node, Operator, ints

_ROUNDINGS: dict[str, Callable[[Tensor], Tensor]] = {
    "round_prefer_floor": lambda at: torch.ceil(at - 0.5),
    "round_prefer_ceil": lambda at: torch.floor(at + 0.5),
    "floor": torch.floor,
    "ceil": torch.ceil,
}


def _resize(node: Node, x: Tensor, *more: Tensor | None) -> Tensor:
    scales, sizes = _scales_and_sizes(node, x, more)
    mode, coordinates = _mode(node)
    if coordinates == "tf_crop_and_resize" or node.get("exclude_outside", 0) or node.get("antialias", 0):
        raise node.unsupported("a crop, an excluded outside or antialiasing")
    found = _by_pytorch(node, x, scales, sizes, mode, coordinates)
    if found is not None:
        return found
    for axis, (scale, size) in enumerate(zip(scales, sizes, strict=True)):
        if scale != 1.0 or size != x.shape[axis]:
            x = _one_axis(node, x, axis, scale, size, mode, coordinates)
    return x


def _mode(node: Node) -> tuple[str, str]:
    older = node.kind == "Upsample" or node.opset < 11
    coordinates = "asymmetric" if older else node.text("coordinate_transformation_mode", "half_pixel")
    return node.text("mode", "nearest"), coordinates


def _rounding(node: Node) -> str:
    older = node.kind == "Upsample" or node.opset < 11
    return "floor" if older else node.text("nearest_mode", "round_prefer_floor")


def _scales_and_sizes(node: Node, x: Tensor, more: tuple[Tensor | None, ...]) -> tuple[list[float], list[int]]:
    """Of every axis. Newer opsets may state only some axes."""
    if node.kind == "Upsample" or node.opset < 11:
        stated, wanted = (more[0] if more else torch.tensor(node.get("scales", []))), None
    else:
        stated, wanted = (more[1] if len(more) > 1 else None), (more[2] if len(more) > 2 else None)
    axes = [axis % x.ndim for axis in node.get("axes", range(x.ndim))]
    shape = list(x.shape)
    scales, sizes = [1.0] * x.ndim, list(shape)
    if wanted is not None and wanted.numel():
        if node.text("keep_aspect_ratio_policy", "stretch") != "stretch":
            raise node.unsupported("a policy for the aspect ratio")
        for axis, size in zip(axes, ints(wanted), strict=True):
            if axis == 0 and size == 1:
                continue  # a graph of batch 1 states that; it may run more
            scales[axis], sizes[axis] = size / shape[axis], size
    elif stated is not None:
        for axis, scale in zip(axes, stated.tolist(), strict=True):
            scales[axis], sizes[axis] = scale, int(shape[axis] * scale + 1e-6)
    return scales, sizes


def _by_pytorch(
    node: Node, x: Tensor, scales: list[float], sizes: list[int], mode: str, coordinates: str
) -> Tensor | None:
    """None where `torch.nn.functional.interpolate` has another formula."""
    if x.ndim != 4 or sizes[:2] != list(x.shape[:2]):
        return None
    exact = all(abs(scale * old - new) < 1e-6 for scale, old, new in zip(scales, x.shape, sizes, strict=True))
    if mode == "nearest":
        whole = exact and all(scale == int(scale) for scale in scales)
        centred = coordinates in ("half_pixel", "pytorch_half_pixel") and _rounding(node).startswith("round")
        if whole and (centred or (coordinates == "asymmetric" and _rounding(node) == "floor")):
            return F.interpolate(x, sizes[2:], mode="nearest")
        return None
    if mode == "linear" and exact and coordinates in ("half_pixel", "pytorch_half_pixel", "align_corners"):
        if coordinates == "pytorch_half_pixel" and 1 in sizes[2:]:
            return None
        return F.interpolate(x, sizes[2:], mode="bilinear", align_corners=coordinates == "align_corners")
    return None


def _one_axis(node: Node, x: Tensor, axis: int, scale: float, size: int, mode: str, coordinates: str) -> Tensor:
    at = _coordinates(coordinates, x.shape[axis], size, scale)
    last = x.shape[axis] - 1
    if mode == "nearest":
        place = _ROUNDINGS[_rounding(node)](at).long().clamp(0, last)
        return x.index_select(axis, place.to(x.device))
    first = at.floor()
    weights = _cubic(at - first, node.get("cubic_coeff_a", -0.75)) if mode == "cubic" else _linear(at - first)
    start = -1 if mode == "cubic" else 0
    shape = [1] * x.ndim
    shape[axis] = size
    total = torch.zeros((), dtype=x.dtype, device=x.device)
    for offset, weight in enumerate(weights, start):
        place = (first.long() + offset).clamp(0, last)
        total = total + x.index_select(axis, place.to(x.device)) * weight.to(x).reshape(shape)
    return total


def _coordinates(how: str, old: int, new: int, scale: float) -> Tensor:
    """Where each output lies on the axis of the input; in float32 as in ONNX Runtime, since roundings decide between
    neighbours."""
    at = torch.arange(new, dtype=torch.float32)
    if how == "align_corners":
        return at * ((old - 1) / (new - 1)) if new > 1 else torch.zeros_like(at)
    if how == "asymmetric":
        return at / scale
    if how == "pytorch_half_pixel" and new == 1:
        return torch.zeros_like(at)
    if how == "half_pixel_symmetric":
        return old / 2 * (1 - new / (scale * old)) + (at + 0.5) / scale - 0.5
    return (at + 0.5) / scale - 0.5


def _linear(part: Tensor) -> list[Tensor]:
    return [1 - part, part]


def _cubic(part: Tensor, a: float) -> list[Tensor]:
    """Weights of the four neighbours (Keys, 1981)."""

    def near(d: Tensor) -> Tensor:
        return (a + 2) * d**3 - (a + 3) * d**2 + 1

    def far(d: Tensor) -> Tensor:
        return a * d**3 - 5 * a * d**2 + 8 * a * d - 4 * a

    return [far(1 + part), near(part), near(1 - part), far(2 - part)]


RESIZING: dict[str, Operator] = {"Resize": _resize, "Upsample": _resize}
