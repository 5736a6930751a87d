"""Operators on single values, comparisons, products of matrices, and reductions."""

from __future__ import annotations

from collections.abc import Callable
from functools import reduce
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from runtime.inference.runners.operators.node import Node, Operator, stated_ints, together

#: ONNX's numbers of types.
DTYPES = {
    1: torch.float32,
    2: torch.uint8,
    3: torch.int8,
    5: torch.int16,
    6: torch.int32,
    7: torch.int64,
    9: torch.bool,
    10: torch.float16,
    11: torch.float64,
    16: torch.bfloat16,
}


def _unary(compute: Callable[[Tensor], Tensor]) -> Operator:
    return lambda _, x: compute(x)


def _binary(compute: Callable[[Tensor, Tensor], Tensor]) -> Operator:
    return lambda _, a, b: compute(*together(a, b))


def _variadic(compute: Callable[[Tensor, Tensor], Tensor]) -> Operator:
    return lambda _, *tensors: reduce(compute, together(*tensors))


def _divided(a: Tensor, b: Tensor) -> Tensor:
    whole = not (a.is_floating_point() or b.is_floating_point())
    return torch.div(a, b, rounding_mode="trunc") if whole else a / b


def _mod(node: Node, a: Tensor, b: Tensor) -> Tensor:
    a, b = together(a, b)
    return torch.fmod(a, b) if node.get("fmod", 0) else torch.remainder(a, b)


def _clip(node: Node, x: Tensor, low: Tensor | None = None, high: Tensor | None = None) -> Tensor:
    least = node.get("min", None) if low is None else low.item()
    most = node.get("max", None) if high is None else high.item()
    clipped: Tensor = x if least is None and most is None else x.clamp(least, most)
    return clipped


def _hard_sigmoid(node: Node, x: Tensor) -> Tensor:
    line: Tensor = x * node.get("alpha", 0.2) + node.get("beta", 0.5)
    return line.clamp(0.0, 1.0)


def _gelu(node: Node, x: Tensor) -> Tensor:
    return F.gelu(x, approximate=node.text("approximate", "none"))


def _p_relu(_: Node, x: Tensor, slope: Tensor) -> Tensor:
    return torch.where(x < 0, x * slope, x)


def _cast(node: Node, x: Tensor) -> Tensor:
    if node.get("to", 1) not in DTYPES:
        raise node.unsupported(f"type {node.get('to', 1)}")
    return x.to(DTYPES[node.get("to", 1)])


def _where(_: Node, condition: Tensor, a: Tensor, b: Tensor) -> Tensor:
    condition, a, b = together(condition, a, b)
    return torch.where(condition, a, b)


def _softmax(node: Node, x: Tensor, compute: Any = torch.softmax) -> Tensor:
    if node.opset >= 13:
        found: Tensor = compute(x, node.get("axis", -1))
        return found
    # Older opsets take all axes from this one on as one.
    axis = node.get("axis", 1) % x.ndim
    flat: Tensor = compute(x.flatten(axis), -1)
    return flat.reshape(x.shape)


def _gemm(node: Node, a: Tensor, b: Tensor, c: Tensor | None = None) -> Tensor:
    a = a.T if node.get("transA", 0) else a
    b = b.T if node.get("transB", 0) else b
    found = node.get("alpha", 1.0) * (a @ b) if node.get("alpha", 1.0) != 1.0 else a @ b
    return found if c is None else found + node.get("beta", 1.0) * c


def _einsum(node: Node, *tensors: Tensor) -> Tensor:
    found: Tensor = torch.einsum(node.text("equation", ""), *tensors)
    return found


def _reduced(compute: Callable[[Tensor, list[int], bool], Tensor]) -> Operator:
    def run(node: Node, x: Tensor, axes: Tensor | None = None) -> Tensor:
        stated = stated_ints(node, "axes", axes)
        if not stated and node.get("noop_with_empty_axes", 0):
            return x
        return compute(x, stated or list(range(x.ndim)), bool(node.get("keepdims", 1)))

    return run


def _prod(x: Tensor, axes: list[int], keep: bool) -> Tensor:
    for axis in sorted((axis % x.ndim for axis in axes), reverse=True):
        x = x.prod(axis, keepdim=keep)
    return x


def _arg(compute: Any) -> Operator:
    def run(node: Node, x: Tensor) -> Tensor:
        if node.get("select_last_index", 0):
            raise node.unsupported("select_last_index")
        found: Tensor = compute(x, node.get("axis", 0), keepdim=bool(node.get("keepdims", 1)))
        return found

    return run


def _top_k(node: Node, x: Tensor, k: Tensor) -> tuple[Tensor, Tensor]:
    values, at = x.topk(
        int(k.item()), node.get("axis", -1), largest=bool(node.get("largest", 1)), sorted=bool(node.get("sorted", 1))
    )
    return values, at


ARITHMETIC: dict[str, Operator] = {
    "Abs": _unary(torch.abs),
    "Ceil": _unary(torch.ceil),
    "Cos": _unary(torch.cos),
    "Erf": _unary(torch.erf),
    "Exp": _unary(torch.exp),
    "Floor": _unary(torch.floor),
    "HardSwish": _unary(F.hardswish),
    "Identity": _unary(lambda x: x),
    "Log": _unary(torch.log),
    "Mish": _unary(F.mish),
    "Neg": _unary(torch.neg),
    "Not": _unary(torch.logical_not),
    "Reciprocal": _unary(torch.reciprocal),
    "Relu": _unary(torch.relu),
    "Round": _unary(torch.round),
    "Sigmoid": _unary(torch.sigmoid),
    "Sign": _unary(torch.sign),
    "Sin": _unary(torch.sin),
    "Softplus": _unary(F.softplus),
    "Softsign": _unary(F.softsign),
    "Sqrt": _unary(torch.sqrt),
    "Tanh": _unary(torch.tanh),
    "Elu": lambda node, x: F.elu(x, node.get("alpha", 1.0)),
    "LeakyRelu": lambda node, x: F.leaky_relu(x, node.get("alpha", 0.01)),
    "PRelu": _p_relu,
    "Clip": _clip,
    "HardSigmoid": _hard_sigmoid,
    "Gelu": _gelu,
    "Cast": _cast,
    "CastLike": lambda _, x, like: x.to(like.dtype),
    "Dropout": lambda _, x, *__: x,
    "Add": _binary(torch.add),
    "Sub": _binary(torch.sub),
    "Mul": _binary(torch.mul),
    "Div": _binary(_divided),
    "Pow": _binary(lambda a, b: torch.pow(a, b).to(a.dtype)),
    "Mod": _mod,
    "And": _binary(torch.logical_and),
    "Or": _binary(torch.logical_or),
    "Equal": _binary(torch.eq),
    "Less": _binary(torch.lt),
    "LessOrEqual": _binary(torch.le),
    "Greater": _binary(torch.gt),
    "GreaterOrEqual": _binary(torch.ge),
    "Max": _variadic(torch.maximum),
    "Min": _variadic(torch.minimum),
    "Sum": _variadic(torch.add),
    "Where": _where,
    "Softmax": _softmax,
    "LogSoftmax": lambda node, x: _softmax(node, x, torch.log_softmax),
    "MatMul": _binary(torch.matmul),
    "Gemm": _gemm,
    "Einsum": _einsum,
    "ReduceMean": _reduced(lambda x, axes, keep: x.mean(axes, keepdim=keep)),
    "ReduceSum": _reduced(lambda x, axes, keep: x.sum(axes, keepdim=keep)),
    "ReduceMax": _reduced(lambda x, axes, keep: x.amax(axes, keepdim=keep)),
    "ReduceMin": _reduced(lambda x, axes, keep: x.amin(axes, keepdim=keep)),
    "ReduceProd": _reduced(_prod),
    "ReduceL2": _reduced(lambda x, axes, keep: x.square().sum(axes, keepdim=keep).sqrt()),
    "ArgMax": _arg(torch.argmax),
    "ArgMin": _arg(torch.argmin),
    "TopK": _top_k,
}
