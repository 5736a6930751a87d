"""Small networks of the usual architectures, and small ONNX graphs, for the tests."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import Tensor, nn

from runtime.onnx_graphs.exporting import export
from runtime.onnx_graphs.reading import ForeignModel


def conv(inputs: int, outputs: int, stride: int = 1, groups: int = 1) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, 3, stride, 1, groups=groups, bias=False), nn.BatchNorm2d(outputs), nn.ReLU()
    )


class ResidualNet(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem = conv(3, 8, 2)
        self.blocks = nn.ModuleList(nn.Sequential(conv(8, 8), nn.Conv2d(8, 8, 3, 1, 1)) for _ in range(3))
        self.end = nn.Linear(8, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        for block in self.blocks:
            x = torch.relu(x + block(x))
        return self.end(x.mean((2, 3)))


class DenseNet(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList(conv(3 + 4 * index, 4) for index in range(3))
        self.end = nn.Sequential(
            nn.AvgPool2d(2), conv(15, 8, 2), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 5)
        )

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.layers:
            x = torch.cat([x, layer(x)], 1)
        return self.end(x)


class AttentionNet(nn.Module):
    """Its tokens come first, (tokens, 1, channels), so that tensors without a batch of one cross the cuts."""

    def __init__(self) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, 16, 8, 8)
        self.attention = nn.MultiheadAttention(16, 2)
        self.wide = nn.Sequential(nn.Linear(16, 32), nn.GELU(), nn.Linear(32, 16))
        self.end = nn.Linear(16, 5)

    def forward(self, x: Tensor) -> Tensor:
        tokens = self.patches(x).flatten(2).permute(2, 0, 1)
        tokens = tokens + self.attention(tokens, tokens, tokens, need_weights=False)[0]
        tokens = tokens + self.wide(tokens)
        return self.end(tokens.mean(0))


class UNet(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.down = nn.ModuleList([conv(3, 4), conv(4, 8, 2), conv(8, 8, 2)])
        self.up = nn.ModuleList([nn.ConvTranspose2d(8, 8, 2, 2), nn.ConvTranspose2d(16, 4, 2, 2)])
        self.end = nn.Conv2d(8, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        first = self.down[0](x)
        second = self.down[1](first)
        third = self.down[2](second)
        x = torch.cat([second, self.up[0](third)], 1)
        return self.end(torch.cat([first, self.up[1](x)], 1))


class Pyramid(nn.Module):
    """A detector: two levels with a head each, whose outputs are joined."""

    def __init__(self) -> None:
        super().__init__()
        self.early, self.late = nn.Sequential(conv(3, 8, 2), conv(8, 8, 2)), conv(8, 16, 2)
        self.side = nn.Conv2d(24, 8, 1)
        self.heads = nn.ModuleList([nn.Conv2d(8, 6, 1), nn.Conv2d(16, 6, 1)])

    def forward(self, x: Tensor) -> Tensor:
        early = self.early(x)
        late = self.late(early)
        up = nn.functional.interpolate(late, scale_factor=2.0)
        early = self.side(torch.cat([early, up], 1))
        return torch.cat([head(level).flatten(2) for head, level in zip(self.heads, (early, late), strict=True)], 2)


def depthwise() -> nn.Module:
    return nn.Sequential(conv(3, 8, 2), conv(8, 8, 1, 8), nn.Conv2d(8, 16, 1), conv(16, 16, 2, 16), nn.Conv2d(16, 4, 1))


ARCHITECTURES: dict[str, Callable[[], nn.Module]] = {
    "residual": ResidualNet,
    "depthwise": depthwise,
    "dense": DenseNet,
    "attention": AttentionNet,
    "u-shaped": UNet,
    "pyramid": Pyramid,
}


def seeded(name: str) -> nn.Module:
    torch.manual_seed(0)
    return ARCHITECTURES[name]().eval()


@cache
def exported(name: str, height: int = 32, width: int = 48) -> ForeignModel:
    """The model of an architecture, exported once for all tests."""
    return export(seeded(name), name, (1, 3, height, width))


def save(
    path: Path,
    nodes: list[Any],
    inputs: list[Any],
    outputs: list[str],
    weights: dict[str, Any] | None = None,
    opset: int = 17,
    domains: tuple[str, ...] = (),
    ir_version: int = 8,
) -> Path:
    """Write a graph to a file. Outputs are float32 of any shape."""
    graph = helper.make_graph(
        nodes,
        "small",
        inputs,
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in outputs],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in (weights or {}).items()],
    )
    opsets = [helper.make_opsetid("", opset), *(helper.make_opsetid(domain, 1) for domain in domains)]
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=ir_version), path)
    return path


def image(shape: list[Any], dtype: int = TensorProto.FLOAT, name: str = "x") -> Any:
    return helper.make_tensor_value_info(name, dtype, shape)


def pyramid(path: Path) -> Path:
    """A detector of any size, made without an export, which takes seconds: two levels, the outputs of both joined."""
    rng, weights, nodes = np.random.default_rng(0), dict[str, Any](), list[Any]()

    def conv(name: str, given: str, inputs: int, outputs: int, kernel: int, stride: int = 1) -> str:
        weights[f"{name}.w"] = rng.normal(0, 0.2, (outputs, inputs, kernel, kernel)).astype(np.float32)
        pads = [kernel // 2] * 4
        nodes.append(
            helper.make_node("Conv", [given, f"{name}.w"], [f"{name}.conv"], name, pads=pads, strides=[stride] * 2)
        )
        nodes.append(helper.make_node("LeakyRelu", [f"{name}.conv"], [name]))
        return name

    early = conv("early", conv("stem", "x", 3, 8, 3, 2), 8, 8, 3, 2)
    late = conv("late", early, 8, 16, 3, 2)
    weights |= {"scales": np.array([1, 1, 2, 2], np.float32), "flat": np.array([0, 6, -1])}
    nodes.append(helper.make_node("Resize", [late, "", "scales"], ["up"], mode="nearest"))
    nodes.append(helper.make_node("Concat", [early, "up"], ["both"], axis=1))
    for index, (level, channels) in enumerate(((conv("side", "both", 24, 8, 1), 8), (late, 16))):
        nodes.append(helper.make_node("Reshape", [conv(f"head{index}", level, channels, 6, 1), "flat"], [f"o{index}"]))
    nodes.append(helper.make_node("Concat", ["o0", "o1"], ["boxes"], axis=2))
    return save(path, nodes, [image(["n", 3, "h", "w"])], ["boxes"], weights)


def convolution(path: Path, **other: Any) -> Path:
    """A model of one convolution and its activation, of any size."""
    weights = {"w": np.linspace(-1, 1, 4 * 3 * 9, dtype=np.float32).reshape(4, 3, 3, 3)}
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["y"], pads=[1, 1, 1, 1], strides=[2, 2]),
        helper.make_node("Relu", ["y"], ["z"]),
    ]
    return save(path, nodes, [image(["n", 3, "h", "w"])], ["z"], weights, **other)
