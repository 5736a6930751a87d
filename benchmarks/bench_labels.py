"""How well PP-OCRv6 detection finds what is written on the rendered goods, at each resolution.

``python -m benchmarks.bench_labels [--widths 640 480 320] [--every 5] [--data RAPIDOCR_WHEEL]``. Two truths: the boxes
that the renderer knows, and the detector's own at the largest width. F1 at IoU 0.5, of all boxes of the test frames
together. Times are those of one thread of ONNX Runtime, without what other processes take from it.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray
from rich.table import Table

from controller.errors import MecpilotError
from runtime.adoption import recipes
from runtime.adoption.recipes.labels.scene import BORDERS, HEIGHT_PX, WIDTH_PX
from runtime.decoders.base import get_decoder
from runtime.observe.tables import table_console
from runtime.workloads.adopted.geometry import Geometry
from runtime.workloads.boxes import Boxes, count_matches, pooled

LEAST_IOU = 0.5
Picture = NDArray[np.uint8]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--widths", type=int, nargs="+", default=[640, 480, 320])
    parser.add_argument("--every", type=int, default=5, help="take every n-th frame of the test split")
    parser.add_argument("--data", type=Path, help="the wheel of rapidocr, or a folder that holds it")
    options = parser.parse_args()
    try:
        found = recipes.find("labels", options.data)
    except MecpilotError as error:
        sys.exit(f"bench_labels: {error}")
    assert found is not None
    measure(found, sorted(options.widths, reverse=True), options.every)


def measure(recipe: recipes.Recipe, widths: list[int], every: int) -> None:
    frames, truth = test_frames(recipe, every)
    table = Table("width", "F1 against the true boxes", f"agreement with {widths[0]} px", "ms per frame")
    reference: list[Boxes] = []
    for width in widths:
        answers, ms = answers_of(recipe, frames, width)
        reference = reference or answers
        table.add_row(str(width), f"{f1(answers, truth):.3f}", f"{f1(answers, reference):.3f}", f"{ms:.0f}")
    console = table_console(wide=True)
    texts = np.mean([len(boxes) for boxes in truth])
    console.print(f"{len(frames)} test frames, {texts:.1f} lines of text each")
    console.print(table)


def f1(answers: list[Boxes], truth: list[Boxes]) -> float:
    """Of all boxes together."""
    return pooled([count_matches(*pair, LEAST_IOU) for pair in zip(answers, truth, strict=True)]).f1


def test_frames(recipe: recipes.Recipe, every: int) -> tuple[list[Picture], list[Boxes]]:
    """Frames of the test split, and the true boxes of each."""
    document = json.loads(recipe.labels.read_bytes())
    total = len(document["images"])
    numbers = range(round(BORDERS[1] * total), total, every)
    boxes: dict[int, list[list[float]]] = {number: [] for number in range(total)}
    for annotation in document["annotations"]:
        boxes[annotation["image_id"]].append([*annotation["bbox"], 1.0])
    capture, frames = cv2.VideoCapture(str(recipe.footage)), []
    for number in range(total):
        picture = capture.read()[1]
        if number in numbers:
            frames.append(np.asarray(picture, np.uint8))
    return frames, [boxes[number] for number in numbers]


def answers_of(recipe: recipes.Recipe, frames: list[Picture], width: int) -> tuple[list[Boxes], float]:
    """Boxes [x, y, w, h, score] of each frame at a width, and the median time of the network in ms."""
    import onnxruntime

    size = round(width * HEIGHT_PX / WIDTH_PX / 32) * 32, width
    options, said = onnxruntime.SessionOptions(), recipe.options
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(str(recipe.model), options, providers=["CPUExecutionProvider"])
    geometry = Geometry({width: size}, colours=said["colours"], scale=said["scale"], mean=said["mean"], std=said["std"])
    decoder, times_s = get_decoder(said["decode"]), []
    answers: list[Boxes] = []
    for frame in frames:
        values = geometry.values(geometry.picture(frame, width)[None]).numpy()
        start_s = time.thread_time()
        outputs = session.run(None, {session.get_inputs()[0].name: values})
        times_s.append(time.thread_time() - start_s)
        rows = decoder.decode([outputs[0][0]], size)
        corners = rows[rows[:, 4] >= said["threshold"], :4] * (WIDTH_PX, HEIGHT_PX, WIDTH_PX, HEIGHT_PX)
        corners = corners.clip(0, (WIDTH_PX, HEIGHT_PX, WIDTH_PX, HEIGHT_PX))
        answers.append([[x0, y0, x1 - x0, y1 - y0, 1.0] for x0, y0, x1, y1 in corners.tolist()])
    return answers, 1e3 * float(np.median(times_s))


if __name__ == "__main__":
    main()
