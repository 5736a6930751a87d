"""A node of an ONNX graph, as operators see it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

from torch import Tensor

from controller.errors import UsageError

Operator: TypeAlias = Callable[..., Tensor | tuple[Tensor, ...]]  # (node, *inputs)


@dataclass(frozen=True)
class Node:
    """One operation. Names that are empty stand for optional inputs that are not there."""

    kind: str
    name: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    attributes: Mapping[str, Any]
    opset: int

    def get(self, attribute: str, default: Any) -> Any:
        """An attribute, or what the standard takes for one that is not stated."""
        return self.attributes.get(attribute, default)

    def text(self, attribute: str, default: str) -> str:
        """An attribute of text."""
        value = self.attributes.get(attribute, default)
        return value.decode() if isinstance(value, bytes) else str(value)

    def unsupported(self, what: str) -> UsageError:
        """The error for a form of the operator that PyTorch does not run here."""
        return UsageError(
            f"{self.kind} {self.name!r} has {what}, which the engine torch does not run; use --engine onnxruntime"
        )


def ints(tensor: Tensor) -> list[int]:
    """The values of a shape, of axes or the like."""
    return [int(value) for value in tensor.flatten().tolist()]


def stated_ints(node: Node, attribute: str, tensor: Tensor | None) -> list[int] | None:
    """What newer opsets take as an input and older ones as an attribute; None where it is not there."""
    if tensor is not None:
        return ints(tensor)
    found = node.get(attribute, None)
    return None if found is None else [int(value) for value in found]


def together(*tensors: Tensor) -> tuple[Tensor, ...]:
    """Tensors on one device: that of the first one that is not on the CPU, where shapes and what comes of them are."""
    place = next((tensor.device for tensor in tensors if tensor.device.type != "cpu"), None)
    return tensors if place is None else tuple(tensor.to(place) for tensor in tensors)


def beside(x: Tensor, other: Tensor) -> Tensor:
    """A tensor where another one is."""
    return x if x.device == other.device else x.to(other.device)
