"""Cuts foreign models everywhere they can be cut, and compares head and tail with the whole.

``python -m benchmarks.bench_cuts model.onnx file.py:function ...`` prints for each model: operators,
multiply-accumulates, the cuts through one, two and three tensors, how many of them no other dominates, the largest
difference between head and tail and the whole over all cuts (relative to the range or the largest value of each
output, on one rendered picture), the seconds for export or reading, fixing the size, and finding the cuts, and the most
memory that the process had so far. Then it prints the cuts that ``mecpilot adopt`` would choose. ``--size`` is of the
picture; a model that states its own size has that.
"""

from __future__ import annotations

import argparse
import resource
import sys
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from controller.errors import MecpilotError
from runtime.onnx_graphs.cuts import Cut, candidates, choose_cuts, not_dominated
from runtime.onnx_graphs.exporting import export_module, is_module_name
from runtime.onnx_graphs.extraction import cut_into_pieces, largest_error
from runtime.onnx_graphs.fixing import FixedGraph, fix_shape
from runtime.onnx_graphs.reading import ForeignModel, read_model

CHANNELS = 3
HEADER = (
    f"{'model':<28} {'size':>9} {'ops':>5} {'MMACs':>7} {'1':>4} {'2':>4} {'3':>4} {'kept':>5} {'cut':>5} "
    f"{'largest error':>13} {'read s':>7} {'fix s':>6} {'find s':>7} {'MiB':>6}"
)


@dataclass(frozen=True)
class Found:
    """What was found in one model."""

    fixed: FixedGraph
    cuts: list[Cut]
    chosen: list[Cut]
    tried: int  # cuts that were compared with the whole
    error: float
    read_s: float
    fix_s: float
    find_s: float


def read(name: str, size: tuple[int, int]) -> ForeignModel:
    return export_module(name, CHANNELS, *size) if is_module_name(name) else read_model(Path(name))


def rendered(shape: tuple[int, ...]) -> NDArray[np.float32]:
    """A picture (1, channels, h, w) from 0 to 1 with shapes and writing, so that detectors and readers see something.

    On mere noise their outputs hardly differ from zero, and differences relative to their range mean little.
    """
    _, channels, height, width = shape
    picture = np.full((height, width, channels), 60, np.uint8)
    cv2.circle(picture, (width // 3, height // 2), height // 4, (200,) * channels, -1)
    cv2.putText(picture, "BOX 42", (2, height // 2), cv2.FONT_HERSHEY_SIMPLEX, width / 160, (255,) * channels, 2)
    noisy = picture + np.random.default_rng(0).normal(0, 8, picture.shape)
    return np.ascontiguousarray(noisy.clip(0, 255).transpose(2, 0, 1)[None] / 255, np.float32)


def examine(name: str, size: tuple[int, int], every: int) -> Found:
    began_s = time.perf_counter()
    model = read(name, size)
    read_s = time.perf_counter()
    fixed = fix_shape(model, model.image.height or size[0], model.image.width or size[1])
    fix_s = time.perf_counter()
    cuts = candidates(fixed.flow)
    chosen = choose_cuts([fixed.flow])
    find_s = time.perf_counter()
    picture = rendered(fixed.input_shape)
    tried = cuts[::every]
    error = max((largest_error(fixed, cut_into_pieces(fixed, [cut]), [picture]) for cut in tried), default=0.0)
    return Found(fixed, cuts, chosen, len(tried), error, read_s - began_s, fix_s - read_s, find_s - fix_s)


def row(name: str, found: Found) -> str:
    tensors = Counter(len(cut.tensors) for cut in found.cuts)
    flow, (height, width) = found.fixed.flow, found.fixed.input_shape[2:]
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10
    return (
        f"{name[-28:]:<28} {f'{height}x{width}':>9} {len(flow.steps):>5} {flow.macs / 1e6:>7.0f} "
        f"{tensors[1]:>4} {tensors[2]:>4} {tensors[3]:>4} {len(not_dominated(found.cuts)):>5} {found.tried:>5} "
        f"{found.error:>13.1e} {found.read_s:>7.1f} {found.fix_s:>6.1f} {found.find_s:>7.2f} {memory:>6}"
    )


def chosen_rows(found: Found) -> list[str]:
    image = int(np.prod(found.fixed.input_shape))  # bytes of the raw picture
    return [
        f"  {100 * cut.macs_before / found.fixed.flow.macs:5.1f} % of the MACs on the device, {cut.size >> 10:>6} KiB "
        f"as float32 ({cut.size / image:.2f} of the raw picture): {', '.join(cut.tensors)}"
        for cut in found.chosen
    ]


def parse(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="bench_cuts", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("models", nargs="*", help="ONNX files, or file.py:function that returns an nn.Module")
    parser.add_argument("--size", type=int, nargs=2, default=(224, 224), metavar=("H", "W"), help="of the pictures")
    parser.add_argument("--every", type=int, default=1, help="compare head and tail at every n-th cut only")
    return parser.parse_args(arguments)


def main(arguments: list[str]) -> int:
    options = parse(arguments)
    if not options.models:
        print("name ONNX files, or file.py:function, to see where they can be cut")
        return 0
    print(HEADER)
    failed = False
    details = []
    for name in options.models:
        try:
            found = examine(name, tuple(options.size), options.every)
        except MecpilotError as error:
            failed = True
            print(f"{name}: {error}", file=sys.stderr)
            continue
        print(row(name, found), flush=True)
        details += ["", f"chosen for {name}:", *chosen_rows(found)]
    print("\n".join(details))
    return int(failed)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
