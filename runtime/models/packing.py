"""Several tensors as one: how a cut through more than one tensor passes through code that knows a single tensor.

The values of the tensors are laid one after the other, (batch, values). One tensor of three dimensions, (channels, h,
w), is not packed. This module imports no torch: a manifest states the shapes.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any, Protocol, TypeAlias, runtime_checkable

import numpy as np
from numpy.typing import NDArray

Shape: TypeAlias = tuple[int, ...]  # without the batch
Shapes: TypeAlias = tuple[Shape, ...]


@runtime_checkable
class PackingStage(Protocol):
    """A stage whose output may hold several tensors."""

    def parts_of(self, packed: Shape) -> Shapes:
        """Shapes of the tensors of an output of that shape; () for one tensor that is not packed."""
        ...


def is_packed(shapes: Shapes) -> bool:
    """Whether tensors of these shapes cross a cut as one packed tensor."""
    return len(shapes) != 1 or len(shapes[0]) != 3


def packed_shape(shapes: Shapes) -> Shape:
    """Shape of the one tensor that stands for tensors of these shapes."""
    return (sum(map(math.prod, shapes)),) if is_packed(shapes) else shapes[0]


def alike(all_shapes: Iterable[Shapes]) -> bool:
    """Whether two of these lists of tensors are the same once they are packed."""
    packed = [packed_shape(shapes) for shapes in all_shapes]
    return len(set(packed)) < len(packed)


def pack(arrays: Sequence[NDArray[Any]]) -> NDArray[Any]:
    """(batch, values) of arrays (batch, ...); a single one (batch, channels, h, w) unchanged."""
    if not is_packed(tuple(array.shape[1:] for array in arrays)):
        return arrays[0]
    return np.concatenate([array.reshape(len(array), -1) for array in arrays], axis=1)


def unpack(packed: NDArray[Any], shapes: Shapes) -> list[NDArray[Any]]:
    """The arrays (batch, ...) that were packed; views where possible. ValueError when the sizes do not fit."""
    if not is_packed(shapes):
        return [packed.reshape(len(packed), *shapes[0])]
    sizes = [math.prod(shape) for shape in shapes]
    if packed.shape[1:] != (sum(sizes),):
        raise ValueError(f"a packed tensor of {packed.shape[1:]}; expected ({sum(sizes)},)")
    pieces = np.split(packed, np.cumsum(sizes)[:-1], axis=1)
    return [piece.reshape(len(packed), *shape) for piece, shape in zip(pieces, shapes, strict=True)]
