"""ONNX operators in PyTorch, by name: what CNNs and small transformers consist of.

Each takes a `Node` and its input tensors, None where an optional one is missing, and returns its output or a tuple of
outputs. Floats are differentiable. Integers stay on the CPU, since most are shapes; `together` and `beside`
bring them to the device of a float where the two meet.
"""

from __future__ import annotations

from runtime.inference.runners.operators.arithmetic import ARITHMETIC
from runtime.inference.runners.operators.convolutions import CONVOLUTIONS
from runtime.inference.runners.operators.node import Node, Operator
from runtime.inference.runners.operators.norms import NORMS
from runtime.inference.runners.operators.resizing import RESIZING
from runtime.inference.runners.operators.shapes import SHAPES

OPERATORS: dict[str, Operator] = ARITHMETIC | CONVOLUTIONS | NORMS | RESIZING | SHAPES

__all__ = ["OPERATORS", "Node", "Operator"]
