"""Runs a piece with PyTorch, operator by operator: on the CPU or a GPU, and with gradients.

`TorchPiece` is the module; others train what comes before a piece through it. Its weights are frozen.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from controller.errors import UsageError
from runtime.inference.runners.operators import OPERATORS, Node
from runtime.models.pieces import Piece
from runtime.onnx_graphs.library import onnx_library

#: A batch must equal its samples run one by one up to this fraction of the range of an output, else they are run so.
_SAME_FRAC = 1e-4
_BATCH = 3  # samples in that comparison


class TorchPiece(nn.Module):
    """Takes the tensors before a piece, (n, ...) each, and returns those after it.

    The graph is one of batch 1. Larger batches run at once where that gives the same as sample by sample, which is
    tried when the first one comes. UsageError for an operator that is not in the table.
    """

    @torch.inference_mode(False)  # made within inference, the weights could not be trained through later
    def __init__(self, piece: Piece) -> None:
        super().__init__()
        self._inputs, self._outputs, self._input_shapes = piece.inputs, piece.outputs, piece.input_shapes
        graph = onnx_library().load_from_string(piece.graph)
        self._names: dict[str, str] = {}  # of buffers, by those of the graph: a buffer's has no dots
        self._integers: dict[str, Tensor] = {}  # shapes and the like, which stay on the CPU
        for tensor in graph.graph.initializer:
            self._keep(tensor.name, _tensor(tensor))
        self._nodes = self._folded(_nodes(graph))
        self._last_use = _last_uses(self._nodes, self._outputs)
        self._batches: bool | None = None

    def forward(self, tensors: Sequence[Tensor]) -> list[Tensor]:
        """(n, ...) each, float32."""
        if len(tensors[0]) == 1 or self.batches:
            return self._run(tensors)
        samples = [self._run([tensor[row : row + 1] for tensor in tensors]) for row in range(len(tensors[0]))]
        return [torch.cat(outputs) for outputs in zip(*samples, strict=True)]

    @property
    def batches(self) -> bool:
        """Whether samples can be run together."""
        if self._batches is None:
            self._batches = self._same_in_batches()
        return self._batches

    @torch.no_grad()
    def _same_in_batches(self) -> bool:
        device = next((buffer.device for buffer in self.buffers()), torch.device("cpu"))
        random = torch.Generator().manual_seed(0)
        batch = [torch.randn(_BATCH, *shape, generator=random).to(device) for shape in self._input_shapes]
        singles = [self._run([tensor[row : row + 1] for tensor in batch]) for row in range(_BATCH)]
        expected = [torch.cat(outputs) for outputs in zip(*singles, strict=True)]
        try:
            found = self._run(batch)
        except (RuntimeError, ValueError, IndexError):  # a shape that a larger batch does not fit
            return False
        return all(_close(one, other) for one, other in zip(found, expected, strict=True))

    def _run(self, tensors: Sequence[Tensor]) -> list[Tensor]:
        values: dict[str, Tensor] = {
            name: tensor.contiguous(memory_format=torch.channels_last) if tensor.ndim == 4 else tensor
            for name, tensor in zip(self._inputs, tensors, strict=True)
        }
        for place, node in enumerate(self._nodes):
            values |= self._outputs_of(node, values)
            for name in self._last_use.get(place, ()):
                values.pop(name, None)
        return [self._output(name, values, len(tensors[0])) for name in self._outputs]

    def _output(self, name: str, values: dict[str, Tensor], batch: int) -> Tensor:
        value = self._value(name, values)
        if name not in values:  # it does not depend on the input, so it is there once
            value = value.expand(batch, *value.shape[1:])
        return value.float().contiguous()

    def _outputs_of(self, node: Node, values: dict[str, Tensor]) -> dict[str, Tensor]:
        inputs = [self._value(name, values) if name else None for name in node.inputs]
        found = OPERATORS[node.kind](node, *inputs)
        outputs = found if isinstance(found, tuple) else (found,)
        return dict(zip(node.outputs, outputs, strict=False))

    def _value(self, name: str, values: dict[str, Tensor]) -> Tensor:
        if name in values:
            return values[name]
        if name in self._integers:
            return self._integers[name]
        buffer: Tensor = getattr(self, self._names[name])
        return buffer

    def _knows(self, name: str) -> bool:
        return not name or name in self._integers or name in self._names

    def _keep(self, name: str, value: Tensor) -> None:
        if not value.is_floating_point():
            self._integers[name] = value
            return
        self._names[name] = f"value_{len(self._names)}"
        kept = value.contiguous(memory_format=torch.channels_last) if value.ndim == 4 else value.contiguous()
        self.register_buffer(self._names[name], kept, persistent=False)

    @torch.no_grad()
    def _folded(self, nodes: Iterator[Node]) -> list[Node]:
        """The nodes that depend on the input; what the others give is computed now."""
        left, known = [], set(self._inputs)
        for node in nodes:
            if "constant" in node.attributes:
                self._keep(node.outputs[0], node.attributes["constant"])
            elif not known.intersection(node.inputs) and all(map(self._knows, node.inputs)):
                for name, value in self._outputs_of(node, {}).items():
                    self._keep(name, value)
            else:
                left.append(node)
                known.update(node.outputs)
        return left


class TorchRunner:
    """A piece in PyTorch on the CPU, as a ``runtime.inference.runners.Runner``."""

    def __init__(self, piece: Piece) -> None:
        self._piece = TorchPiece(piece)

    @torch.no_grad()
    def __call__(self, arrays: Sequence[NDArray[np.float32]]) -> list[NDArray[np.float32]]:
        tensors = [torch.from_numpy(np.require(array, requirements="W")) for array in arrays]
        return [output.numpy() for output in self._piece(tensors)]


def _nodes(model: Any) -> Iterator[Node]:
    opsets = {entry.domain: entry.version for entry in model.opset_import}
    get = onnx_library().helper.get_attribute_value
    for node in model.graph.node:
        kind = node.op_type if node.domain in ("", "ai.onnx") else f"{node.domain}.{node.op_type}"
        attributes = {attribute.name: get(attribute) for attribute in node.attribute}
        if kind == "Constant":
            attributes = {"constant": _constant(attributes)}
        elif kind not in OPERATORS:
            raise UsageError(
                f"the engine torch has no operator {kind} (node {node.name!r}); use --engine onnxruntime or openvino"
            )
        elif kind == "ConstantOfShape" and "value" in attributes:
            attributes["value"] = _tensor(attributes["value"])
        yield Node(kind, node.name, tuple(node.input), tuple(node.output), attributes, opsets.get("", 1))


def _constant(attributes: dict[str, Any]) -> Tensor:
    ((name, value),) = attributes.items()
    if name == "value":
        return _tensor(value)
    return torch.tensor(value, dtype=torch.float32 if name.startswith("value_float") else torch.int64)


def _tensor(proto: Any) -> Tensor:
    return torch.from_numpy(np.array(onnx_library().numpy_helper.to_array(proto)))


def _last_uses(nodes: list[Node], kept: tuple[str, ...]) -> dict[int, list[str]]:
    """The values that no later node needs, by the place of the last one that does."""
    last = {name: place for place, node in enumerate(nodes) for name in (*node.outputs, *node.inputs)}
    found: dict[int, list[str]] = {}
    for name, place in last.items():
        if name not in kept:
            found.setdefault(place, []).append(name)
    return found


def _close(one: Tensor, other: Tensor) -> bool:
    if one.shape != other.shape or one.numel() == 0:
        return one.shape == other.shape
    allowed = _SAME_FRAC * float(other.max() - other.min()) + 1e-6
    return float((one - other).abs().max()) <= allowed
