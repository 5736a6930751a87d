"""Exit heads for the features of a foreign model: they read one of the tensors at a cut."""

from __future__ import annotations

import math
from collections.abc import Mapping

from torch import Tensor, nn

from runtime.models.blocks import conv_norm, pooled_head
from runtime.models.detector_parts import MAP_STRIDE, Peaks
from runtime.models.detectors import exit_head, hourglass
from runtime.models.packing import Shape, Shapes, is_packed, packed_shape

#: Shapes of the tensors at a cut, by height and width of the picture.
Places = Mapping[tuple[int, int], Shapes]
HEAD_STRIDE = 8  # input pixels per cell where a head of boxes works, or more where the features are coarser


class PartOf(nn.Module):
    """One of the tensors at a cut, (batch, channels, h, w). Rows of values, (n, channels), are a map of one column."""

    def __init__(self, places: Places, part: int) -> None:
        super().__init__()
        self.part = part
        self._packed = {packed_shape(shapes): shapes for shapes in places.values() if is_packed(shapes)}

    def forward(self, x: Tensor) -> Tensor:
        if x.ndim == 4:
            return x
        shapes = self._packed[tuple(x.shape[1:])]
        start = sum(math.prod(shape) for shape in shapes[: self.part])
        shape = shapes[self.part]
        values = x.narrow(1, start, math.prod(shape))
        return as_map(values, shape)


def as_map(values: Tensor, shape: Shape) -> Tensor:
    """(batch, channels, h, w) of the values (batch, ...) of a tensor of that shape."""
    if len(shape) >= 3:
        return values.reshape(len(values), shape[-3], -1, shape[-1])
    rows = math.prod(shape[:-1])
    return values.reshape(len(values), rows, shape[-1]).movedim(2, 1)[..., None]


def channels_of(shape: Shape) -> int:
    """Channels of the map that `as_map` makes of a tensor of that shape."""
    return shape[-3] if len(shape) >= 3 else shape[-1]


def stride_of(picture: tuple[int, int], shape: Shape) -> int:
    """Input pixels per cell of a tensor (channels, h, w), the nearest power of two."""
    ratio = math.sqrt(picture[0] / shape[1] * picture[1] / shape[2])
    return max(1, 1 << round(math.log2(ratio)))


def map_head(
    places: Places, part: int, hidden: int, widths_px: tuple[int, ...], classes: int, peaks: int
) -> nn.Sequential:
    """A head that finds boxes: candidates (batch, peaks, 5 or 6), or its map in training mode."""
    picture, shapes = next(iter(places.items()))
    channels, stride = shapes[part][0], stride_of(picture, shapes[part])
    down = max(1, HEAD_STRIDE // stride)
    found = exit_head(hidden, hidden, Peaks(widths_px, classes, peaks), max(stride * down, MAP_STRIDE))
    wide = hourglass(hidden, (2 * hidden, 2 * hidden))  # text and near objects are larger than what early features see
    return nn.Sequential(PartOf(places, part), conv_norm(channels, hidden, 3, down), wide, *found)


def class_head(places: Places, part: int, hidden: int, classes: int) -> nn.Sequential:
    """A head that finds the class: logits (batch, classes)."""
    shape = next(iter(places.values()))[part]
    pool = 2 if len(shape) >= 3 and min(shape[-2:]) >= 2 else 1
    return nn.Sequential(PartOf(places, part), pooled_head(channels_of(shape), pool, hidden, classes))
