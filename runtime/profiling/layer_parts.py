"""Of which layers does a segment consist? Parts that cuts never divide, each layer ready to be run by itself.

A part is a stage, an exit head, or a step around the network (resizing, conversion, encoding, decoding), which
counts as a layer of its own kind. The regressions are fitted on layers and predict a segment as the sum over its parts.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from controller.records import Decision
from controller.space import NO_PAYLOAD
from runtime.codecs import decode, encode
from runtime.inference.segments import Segments
from runtime.models.describe import LayerInfo, describe_layers
from runtime.models.detector_parts import Peaks
from runtime.models.stages import Residual
from runtime.workloads.types import Image

PartKey = tuple[str | int, ...]
Call = Callable[[], Any]

#: The modules that `describe_layers` lists; all others compute nothing of their own.
_LISTED = (
    nn.Conv2d,
    nn.Linear,
    nn.MaxPool2d,
    nn.AdaptiveAvgPool2d,
    nn.ReLU,
    nn.BatchNorm2d,
    nn.Upsample,
    nn.PixelShuffle,
    Residual,
    Peaks,
)


@dataclass(frozen=True, slots=True)
class Part:
    """Layers in the order they run, and how to run each on what it gets in a real pass.

    ``fold`` is 0 or 1: what is used to judge the regressions on one fold was fitted on the other.
    """

    layers: tuple[LayerInfo, ...]
    calls: tuple[Call, ...]
    fold: int


def parts_of(segments: Segments, image: Image) -> dict[PartKey, Part]:
    """All parts of a bundle at all resolutions."""
    bundle = segments.bundle
    parts: dict[PartKey, Part] = {}
    with torch.inference_mode():
        for order, px in enumerate(bundle.manifest.resolutions_px):
            parts |= _image_parts(segments, image, px, order % 2)
            x = _input_of(segments, segments.workload.resize(image, px))
            for name in bundle.model_names:
                parts |= _model_parts(segments, name, px, x)
    return parts


def part_keys(segments: Segments, decision: Decision, side: str) -> list[PartKey]:
    """The parts that a decision's head ("device") or tail ("mec") runs, in order."""
    d, px = decision, decision.resolution_px
    where: PartKey = (d.model, px) if d.partition_point else ("", px)
    codec: PartKey = (*where, d.partition_point, d.payload)
    after = segments.bundle.info(d.model).exit_after[d.exit_branch]
    stages: list[PartKey] = [("stage", d.model, px, index) for index in range(after)]
    exit_head: PartKey = ("exit", d.model, px, d.exit_branch)
    if side == "mec":
        start: list[PartKey] = [("decode", *codec)] + ([] if d.partition_point else [("input", px)])
        return [*start, *stages[d.partition_point :], exit_head]
    if d.payload == NO_PAYLOAD:
        return [("resize", px), ("input", px), *stages, exit_head]
    if d.partition_point == 0:
        return [("resize", px), ("encode", *codec)]
    return [("resize", px), ("input", px), *stages[: d.partition_point], ("encode", *codec)]


def _input_of(segments: Segments, small: Image) -> Tensor:
    return segments.workload.to_input(np.require(small, requirements="W")[None])


def _image_parts(segments: Segments, image: Image, px: int, fold: int) -> dict[PartKey, Part]:
    """Resizing, conversion to the network's input, and the image codecs."""
    small = segments.workload.resize(image, px)
    resize = partial(segments.workload.resize, image, px)
    # Nothing is computed when the size stays, and no regression should have to explain it.
    resized = _step("resize", resize, fold, image.size, small.size) if small.shape != image.shape else _NOTHING
    parts: dict[PartKey, Part] = {
        ("resize", px): resized,
        ("input", px): _step("input", partial(_input_of, segments, small), fold, small.size),
    }
    for codec in segments.bundle.manifest.image_codecs:
        parts |= _codec_parts(("", px, 0, codec), codec, small, fold)
    return parts


def _model_parts(segments: Segments, name: str, px: int, x: Tensor) -> dict[PartKey, Part]:
    """Stages, exit heads and tensor codecs of one model at one resolution."""
    model = segments.bundle.model(name)
    described = describe_layers(model, x)
    parts: dict[PartKey, Part] = {}
    for index, layers in enumerate(described.stages):
        with _captured_calls(model.stages[index]) as calls:
            x = model.run_stages(x, index, index + 1)
        parts["stage", name, px, index] = _part(layers, calls, index % 2)
        if index + 1 in model.exit_after:
            exit_branch = model.exit_after.index(index + 1)
            with _captured_calls(model.exits[exit_branch]) as calls:
                model.exits[exit_branch](x)
            parts["exit", name, px, exit_branch] = _part(described.exits[exit_branch], calls, exit_branch % 2)
        for codec in segments.bundle.manifest.tensor_codecs:
            parts |= _codec_parts((name, px, index + 1, codec), codec, x[0].numpy(), index % 2)
    return parts


def _part(layers: tuple[LayerInfo, ...], calls: list[Call], fold: int) -> Part:
    if len(layers) != len(calls):
        raise AssertionError("describe_layers and _LISTED disagree about which modules are layers")
    return Part(layers, tuple(calls), fold)


_NOTHING = Part((), (), 0)


def _codec_parts(where: PartKey, codec: str, array: NDArray[Any], fold: int) -> dict[PartKey, Part]:
    payload = encode(codec, array)
    back = partial(decode, codec, payload, array.shape, array.dtype)
    return {
        ("encode", *where): _step(f"encode/{codec}", partial(encode, codec, array), fold, array.size),
        ("decode", *where): _step(f"decode/{codec}", back, fold, array.size),
    }


def _step(kind: str, call: Call, fold: int, *sizes: int) -> Part:
    info = LayerInfo(kind, tuple(float(size) for size in sizes), 0, sizes[0], sizes[-1])
    return Part((info,), (call,), fold)


@contextmanager
def _captured_calls(module: nn.Module) -> Iterator[list[Call]]:
    """Collect each layer that runs inside the block, with its input, in order of completion."""
    calls: list[Call] = []

    def capture(layer: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        if isinstance(layer, Residual):  # only the addition is its own
            calls.append(partial(torch.add, output, output))
        else:
            calls.append(partial(layer, inputs[0]))

    hooks = [part.register_forward_hook(capture) for part in module.modules() if isinstance(part, _LISTED)]
    try:
        yield calls
    finally:
        for hook in hooks:
            hook.remove()
