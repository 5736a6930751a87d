"""The parts of segments: pieces that no cut divides, each with its layers ready to be run by themselves.

A part is a stage, an exit head, or a step around the network (resizing, conversion, encoding, decoding), which
counts as a layer of its own kind. The regressions are fitted on layers and predict a segment as the sum over its parts.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any

from numpy.typing import NDArray

from controller.records import NO_PAYLOAD, Decision
from runtime.codecs import decode, encode
from runtime.inference.segments import Segments
from runtime.models.layers import Call, Layer, LayerInfo
from runtime.workloads.types import Image

PartKey = tuple[str | int, ...]


@dataclass(frozen=True, slots=True)
class Part:
    """Layers in the order they run.

    ``fold`` is 0 or 1: the regressions that are judged on one fold were fitted on the other.
    """

    layers: tuple[Layer, ...]
    fold: int


#: A step that computes nothing.
_NOTHING = Part((), 0)


def parts_of(segments: Segments, image: Image) -> dict[PartKey, Part]:
    """All parts of a bundle at all resolutions."""
    bundle = segments.bundle
    parts: dict[PartKey, Part] = {}
    for order, px in enumerate(bundle.manifest.resolutions_px):
        small = segments.workload.resize(image, px)
        parts |= _image_parts(segments, image, small, px, order % 2)
        for name in bundle.model_names:
            parts |= _model_parts(segments, name, px, small, order % 2)
    return parts


def part_keys(segments: Segments, decision: Decision, side: str) -> list[PartKey]:
    """The parts that a decision's head ("device") or tail ("mec") runs, in order."""
    d, px = decision, decision.resolution_px
    info = segments.bundle.info(d.model)
    where: PartKey = (d.model, px) if d.partition_point else ("", px)
    codec: PartKey = (*where, d.partition_point, d.payload)
    to_input: PartKey = ("input", info.engine, px)
    stages: list[PartKey] = [("stage", d.model, px, index) for index in range(info.exit_after[d.exit_branch])]
    exit_head: PartKey = ("exit", d.model, px, d.exit_branch)
    if side == "mec":
        start: list[PartKey] = [("decode", *codec)] + ([] if d.partition_point else [to_input])
        return [*start, *stages[d.partition_point :], exit_head]
    if d.payload == NO_PAYLOAD:
        return [("resize", px), to_input, *stages, exit_head]
    if d.partition_point == 0:
        return [("resize", px), ("encode", *codec)]
    return [("resize", px), to_input, *stages[: d.partition_point], ("encode", *codec)]


def _image_parts(segments: Segments, image: Image, small: Image, px: int, fold: int) -> dict[PartKey, Part]:
    """Resizing, and the image codecs."""
    resize = partial(segments.workload.resize, image, px)
    # Nothing is computed when the size stays, and no regression should have to explain it.
    resized = _step("resize", resize, fold, image.size, small.size) if small.shape != image.shape else _NOTHING
    parts: dict[PartKey, Part] = {("resize", px): resized}
    for codec in segments.bundle.manifest.image_codecs:
        parts |= _codec_parts(("", px, 0, codec), codec, small, fold)
    return parts


def _model_parts(segments: Segments, name: str, px: int, small: Image, px_fold: int) -> dict[PartKey, Part]:
    """Conversion to the network's input, stages, exit heads and tensor codecs of one model at one resolution."""
    info, engine, model = segments.bundle.info(name), segments.engine(name), segments.loaded(name)
    to_input = _step("input", partial(engine.input_of, small), px_fold, small.size)
    parts: dict[PartKey, Part] = {("input", info.engine, px): to_input}
    with engine.computing():
        z = engine.input_of(small)
        for index in range(len(info.stages)):
            z, layers = model.record_stage(z, index)
            parts["stage", name, px, index] = Part(tuple(layers), index % 2)
            if index + 1 in info.exit_after:
                exit_branch = info.exit_after.index(index + 1)
                exit_layers = tuple(model.record_exit(z, exit_branch))
                parts["exit", name, px, exit_branch] = Part(exit_layers, exit_branch % 2)
            for codec in segments.bundle.manifest.tensor_codecs:
                parts |= _codec_parts((name, px, index + 1, codec), codec, engine.to_array(z)[0], index % 2)
    return parts


def _codec_parts(where: PartKey, codec: str, array: NDArray[Any], fold: int) -> dict[PartKey, Part]:
    back = partial(decode, codec, encode(codec, array), array.shape)
    return {
        ("encode", *where): _step(f"encode/{codec}", partial(encode, codec, array), fold, array.size),
        ("decode", *where): _step(f"decode/{codec}", back, fold, array.size),
    }


def _step(kind: str, call: Call, fold: int, *sizes: int) -> Part:
    return Part((Layer(LayerInfo(kind, tuple(map(float, sizes)), 0), call),), fold)
