"""A tiny foreign model and footage for it: a text detector that finds bright bars on a dark background."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np

WIDTH, HEIGHT = 128, 96


def bright_bars_model() -> Any:
    """An ONNX model, (1, 3, h, w) in [0, 1] -> probability map (1, 1, h, w), for any h and w that 4 divides.

    It has two convolutions with stride 2, and enlarges their result: the probability is high where a place is bright.
    """
    from onnx import TensorProto, helper, numpy_helper

    rng = np.random.default_rng(0)

    def conv(name: str, source: str, out: int, into: int, stride: int, bias: float = 0.0) -> list[Any]:
        kernel = rng.uniform(0.5, 1.5, (out, into, 3, 3)).astype(np.float32)
        kernel /= kernel.sum(axis=(1, 2, 3), keepdims=True)  # of a bright place: 1
        weights.append(numpy_helper.from_array(kernel, f"{name}.w"))
        weights.append(numpy_helper.from_array(np.full(out, bias, np.float32), f"{name}.b"))
        inputs = [source, f"{name}.w", f"{name}.b"]
        return [
            helper.make_node("Conv", inputs, [f"{name}.out"], strides=[stride] * 2, pads=[1] * 4, name=name),
            helper.make_node("Relu", [f"{name}.out"], [name], name=f"{name}.relu"),
        ]

    weights: list[Any] = [
        numpy_helper.from_array(np.array([1, 1, 4, 4], np.float32), "scales"),
        numpy_helper.from_array(np.array([[[[24.0]]]], np.float32), "gain"),
        numpy_helper.from_array(np.array([[[[-9.0]]]], np.float32), "shift"),
    ]
    nodes = [
        *conv("first", "image", 8, 3, 2),
        *conv("second", "first", 8, 8, 2),
        *conv("third", "second", 8, 8, 1),
        *conv("last", "third", 1, 8, 1),
        helper.make_node("Resize", ["last", "", "scales"], ["large"], mode="nearest", name="large"),
        helper.make_node("Mul", ["large", "gain"], ["gained"], name="gained"),
        helper.make_node("Add", ["gained", "shift"], ["logit"], name="logit"),
        helper.make_node("Sigmoid", ["logit"], ["map"], name="map"),
    ]
    image = helper.make_tensor_value_info("image", TensorProto.FLOAT, ["n", 3, "h", "w"])
    found = helper.make_tensor_value_info("map", TensorProto.FLOAT, ["n", 1, "h", "w"])
    graph = helper.make_graph(nodes, "bright_bars", [image], [found], weights)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)


def bright_bars_video(path: Path, frames: int = 60) -> None:
    """Motion JPEG of two bright bars that move to the right over dark grey noise, at 10 frames/s."""
    rng = np.random.default_rng(1)
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"MJPG"), 10.0, (WIDTH, HEIGHT))
    for frame in range(frames):
        picture = rng.integers(20, 50, (HEIGHT, WIDTH, 3), dtype=np.uint8)
        for top, speed in ((16, 2), (60, 3)):
            left = 4 + speed * frame % (WIDTH - 48)
            picture[top : top + 14, left : left + 36] = rng.integers(200, 240, 3)
        writer.write(picture)
    writer.release()
