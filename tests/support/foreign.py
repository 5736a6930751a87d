"""A small foreign detector for tests: it finds red rectangles, with weights that are set by hand."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import cv2
import msgspec
import numpy as np
from onnx import TensorProto, helper, numpy_helper

from runtime.models.foreign_stage import ForeignStage
from runtime.models.stages import BranchyModel
from runtime.onnx_graphs.cuts import choose_cuts
from runtime.onnx_graphs.extraction import cut_into_pieces
from runtime.onnx_graphs.fixing import fix_shape
from runtime.onnx_graphs.reading import checked_model
from runtime.workloads.adopted.description import FORMAT_VERSION, Adoption, Decoding, Footage, Truth, by_time
from runtime.workloads.adopted.families import WholeFamily
from runtime.workloads.adopted.geometry import Geometry
from runtime.workloads.adopted.pictures import digest_of, size_of
from runtime.workloads.adopted.workload import Adopted
from support.adopted import write_adoption

FRAMES = 80
SHAPE = (96, 128, 3)
SIZES = {128: (96, 128), 96: (72, 96)}
CHANNELS = (4, 8, 16, 16, 8)


def red_finder() -> Any:
    """An ONNX model for (1, 3, h, w): the share of red, through five convolutions, as a map (1, 1, h, w) in 0 to 1.

    The first channel carries what is red; the others are random and do not reach the output.
    """
    rng = np.random.default_rng(0)
    nodes, weights, name, inputs = [], [], "image", 3
    for index, outputs in enumerate(CHANNELS):
        stride = 2 if index in (0, 1, 3) else 1
        weight = rng.normal(0, 0.3, (outputs, inputs, 3, 3)).astype(np.float32)
        weight[0] = 0.0
        weight[0, 0, 1, 1] = 1.0
        if index == 0:
            weight[0, :, 1, 1] = -0.5, -0.5, 1.0  # blue, green, red
        weights.append(numpy_helper.from_array(weight, f"w{index}"))
        attributes = {"kernel_shape": [3, 3], "strides": [stride, stride], "pads": [1, 1, 1, 1]}
        nodes.append(helper.make_node("Conv", [name, f"w{index}"], [f"c{index}"], **attributes))
        nodes.append(helper.make_node("Relu", [f"c{index}"], [f"r{index}"]))
        name, inputs = f"r{index}", outputs
    last = np.zeros((1, inputs, 1, 1), np.float32)
    last[0, 0] = 20.0
    weights += [numpy_helper.from_array(last, "last"), numpy_helper.from_array(np.array([-5.0], np.float32), "bias")]
    weights.append(numpy_helper.from_array(np.array([1, 1, 8, 8], np.float32), "scales"))
    nodes += [
        helper.make_node("Conv", [name, "last", "bias"], ["logits"], kernel_shape=[1, 1]),
        helper.make_node("Resize", ["logits", "", "scales"], ["large"], mode="linear"),
        helper.make_node("Sigmoid", ["large"], ["map"]),
    ]
    image = helper.make_tensor_value_info("image", TensorProto.FLOAT, [1, 3, "h", "w"])
    found = helper.make_tensor_value_info("map", TensorProto.FLOAT, [1, 1, "h", "w"])
    graph = helper.make_graph(nodes, "red", [image], [found], weights)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def rectangles_at(number: int) -> list[list[int]]:
    """Two rectangles x, y, w, h that move in opposite directions."""
    return [[(3 * number) % 96, 8, 26, 18], [96 - (2 * number) % 88, 56, 20, 28]]


def write_rectangles(path: Path) -> Path:
    """Lossless footage of red rectangles, and some that are not red, on grey."""
    video = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"FFV1"), 10.0, (SHAPE[1], SHAPE[0]))
    for number in range(FRAMES):
        rng = np.random.default_rng(number)
        picture = rng.integers(90, 110, SHAPE).astype(np.uint8)
        cv2.rectangle(picture, (10, 36), (40, 48), (200, 180, 40), -1)
        for x, y, w, h in rectangles_at(number):
            cv2.rectangle(picture, (x, y), (x + w - 1, y + h - 1), (30, 30, 230), -1)
        video.write(picture)
    video.release()
    return path


def whole_of(work: Adopted, cuts: int = 3) -> BranchyModel:
    """The foreign model in stages with their pieces, and its decoder."""
    model = checked_model(red_finder(), "red.onnx")
    fixed = [fix_shape(model, *size) for size in SIZES.values()]
    chosen = choose_cuts([each.flow for each in fixed], cuts)
    pieces = [cut_into_pieces(each, chosen) for each in fixed]
    stages = [ForeignStage(stage) for stage in zip(*pieces, strict=True)]
    return BranchyModel(stages, [work.decoded_exit()], (len(stages),), channels_last=False)


def red_work(folder: Path, truths: list[Any] | None = None) -> Adopted:
    """The workload of the foreign model on the footage; truths: the rectangles, where none are given."""
    video = write_rectangles(folder / "red.avi")
    boxes = [[[*map(float, box), 1.0, 0] for box in rectangles_at(number)] for number in range(FRAMES)]
    adoption = Adoption(
        format_version=FORMAT_VERSION,
        name="red",
        task="text",
        geometry=Geometry(sizes=SIZES, colours="bgr"),
        decoding=Decoding("db", {px: ((1, *size),) for px, size in SIZES.items()}, {"unclip": 0.0}, most=16),
        frame_shape=SHAPE,
        footage=Footage(video.name, str(video), digest_of(video), size_of(video), FRAMES, 10.0),
        splits=by_time(FRAMES),
        truth=Truth("labels", hashlib.sha256(msgspec.json.encode(truths or boxes)).hexdigest(), "the test"),
        families={"whole": WholeFamily(1)},
        classes=("red",),
    )
    return Adopted(adoption, write_adoption(folder / "bundle", adoption, truths or boxes))
