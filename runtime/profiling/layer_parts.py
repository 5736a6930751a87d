"""Divide segments into parts that no cut divides, each with layers that can be timed alone.

A part is a stage, an exit head, or a step around the network (resizing, conversion, encoding, decoding). Such a step
counts as a layer of its own kind. The regressions are fitted on layers and predict a segment as the sum over its parts.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any

from numpy.typing import NDArray

from controller.records import NO_PAYLOAD, Decision
from runtime.codecs import IMAGE
from runtime.codecs.several import codec_for
from runtime.codecs.streams import stream_codec
from runtime.inference.segments import Segments
from runtime.inference.steady import steady_stream
from runtime.models.layers import Call, Layer, LayerInfo
from runtime.models.packing import Shapes
from runtime.workloads.types import Image

PartKey = tuple[str | int, ...]


@dataclass(frozen=True, slots=True)
class PreparedCall:
    """A call to be timed, and what must be done before it and is not timed."""

    prepare: Call
    call: Call

    def __call__(self) -> Any:
        return self.call()


@dataclass(frozen=True, slots=True)
class Part:
    """Layers in the order they run.

    ``fold`` is 0 or 1, for cross-validation: regressions fitted on one fold are judged on the other.
    """

    layers: tuple[Layer, ...]
    fold: int


#: The part of a step that computes nothing.
_NOTHING = Part((), 0)


def parts_of(segments: Segments, image: Image) -> dict[PartKey, Part]:
    """All parts of a bundle at all resolutions, by key. ``image`` is a frame (h, w[, 3]) to run them on."""
    bundle = segments.bundle
    parts: dict[PartKey, Part] = {}
    for order, px in enumerate(bundle.manifest.resolutions_px):
        small = segments.workload.resize(image, px)
        parts |= _image_parts(segments, image, small, px, order % 2)
        for model in bundle.manifest.models:
            if px in bundle.manifest.resolutions_of(model):
                parts |= _model_parts(segments, model.name, px, small, order % 2)
    return parts


def part_keys(segments: Segments, decision: Decision, side: str) -> list[PartKey]:
    """The parts that a decision's head ("device"), its tail ("mec") or its exit head alone ("exit") runs, in order."""
    d, px = decision, decision.resolution_px
    info = segments.bundle.info(d.model)
    codec: PartKey = (d.model if d.partition_point else "", px, d.partition_point, d.payload)
    to_input: PartKey = ("input", d.model, px)
    stages: list[PartKey] = [("stage", d.model, px, index) for index in range(info.exit_after[d.exit_branch])]
    exit_head: PartKey = ("exit", d.model, px, d.exit_branch)
    if side == "exit":
        return [exit_head]
    if side == "mec":
        start: list[PartKey] = [("decode", *codec)] + ([] if d.partition_point else [to_input])
        return [*start, *stages[d.partition_point :], exit_head]
    if d.payload == NO_PAYLOAD:
        return [("resize", px), to_input, *stages, exit_head]
    if d.partition_point == 0:
        return [("resize", px), ("encode", *codec)]
    return [("resize", px), to_input, *stages[: d.partition_point], ("encode", *codec)]


def _image_parts(segments: Segments, image: Image, small: Image, px: int, fold: int) -> dict[PartKey, Part]:
    """The parts of resizing and of the image codecs."""
    resize = partial(segments.workload.resize, image, px)
    # Resizing to the same size computes nothing, so it must not enter the regression.
    resized = _step("resize", resize, fold, image.size, small.size) if small.shape != image.shape else _NOTHING
    parts: dict[PartKey, Part] = {("resize", px): resized}
    for codec in segments.bundle.manifest.codecs_of_kind(IMAGE):
        parts |= codec_parts(segments, ("", px, 0, codec), small, fold)
    return parts


def _model_parts(segments: Segments, name: str, px: int, small: Image, px_fold: int) -> dict[PartKey, Part]:
    """The parts of one model at one resolution: input conversion, stages, exit heads and tensor codecs."""
    info, engine, model = segments.bundle.info(name), segments.engine(name), segments.loaded(name)
    to_input = _step(f"input/{name}", partial(model.input_of_batch, [small]), px_fold, small.size)
    parts: dict[PartKey, Part] = {("input", name, px): to_input}
    with engine.computing():
        z = model.input_of_batch([small])
        for index in range(len(info.stages)):
            z, layers = model.record_stage(z, index)
            parts["stage", name, px, index] = Part(tuple(layers), index % 2)
            if index + 1 in info.exit_after:
                exit_branch = info.exit_after.index(index + 1)
                exit_layers = tuple(model.record_exit(z, exit_branch))
                parts["exit", name, px, exit_branch] = Part(exit_layers, exit_branch % 2)
            array, tensors = engine.to_array(z)[0], info.stages[index].parts.get(px, ())
            for codec in segments.bundle.manifest.codecs_at(info, index + 1):
                parts |= codec_parts(segments, (name, px, index + 1, codec), array, index % 2, tensors)
    return parts


def codec_parts(
    segments: Segments, key: PartKey, array: NDArray[Any], fold: int, tensors: Shapes = ()
) -> dict[PartKey, Part]:
    """The parts of encoding and decoding one array; of a stream, with itself as the reference.

    ``tensors`` are the shapes of those that are packed into the array.
    """
    codec = str(key[-1])
    coder = codec_for(codec, tensors)
    encoding: Call = partial(coder.encode, array)
    decoding: Call = partial(coder.decode, coder.encode(array), array.shape)
    if stream_codec(codec) is not None:
        encoding, decoding = _stream_calls(segments, key, array)
    return {
        ("encode", *key): _step(f"encode/{codec}", encoding, fold, array.size),
        ("decode", *key): _step(f"decode/{codec}", decoding, fold, array.size),
    }


def _stream_calls(segments: Segments, key: PartKey, array: NDArray[Any]) -> tuple[Call, Call]:
    model, px, cut, codec = key
    decision = Decision(str(model or segments.bundle.model_names[0]), int(px), 0, int(cut), str(codec))
    encoding, decoding = steady_stream(segments.bundle, decision), steady_stream(segments.bundle, decision)
    assert encoding is not None
    assert decoding is not None
    return partial(encoding.encode, array), PreparedCall(partial(decoding.encode, array), decoding.decode)


def _step(kind: str, call: Call, fold: int, *sizes: int) -> Part:
    return Part((Layer(LayerInfo(kind, tuple(map(float, sizes)), 0), call),), fold)
