"""The description of an adopted workload, from what the user said and what was found."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from statistics import fmean
from typing import TYPE_CHECKING, Any

import msgspec

from controller.errors import UsageError
from runtime.adoption.codec_choice import offered_codecs
from runtime.adoption.presets import Preset, preset_of
from runtime.adoption.request import Request
from runtime.codecs import IMAGE, TENSOR
from runtime.decoders.base import Decoder, check_fits, get_decoder
from runtime.decoders.given import GivenDecoder, give, given
from runtime.models.packing import Shape
from runtime.onnx_graphs.fixing import FixedGraph
from runtime.workloads.adopted.description import FORMAT_VERSION, Adoption, Decoding, Truth, UserCode, by_time
from runtime.workloads.adopted.families import Family, WholeFamily
from runtime.workloads.adopted.geometry import Geometry, Size
from runtime.workloads.family_decisions import FamilyDecisions

if TYPE_CHECKING:
    from runtime.adoption.subject import Subject

WHOLE = "whole"  # the family of the foreign model itself
#: Frames that may be skipped after one that is run, where frames are a stream.
STREAM_STRIDES = (1, 2, 3, 5)


def geometry_of(request: Request, sizes: Mapping[int, Size], dtype: str, channels: int) -> Geometry:
    """The picture that the model takes: what the user said, else what is usual for the decoder.

    UsageError for --colours, --mean or --std of another number of channels.
    """
    preset = _preset(request, dtype, channels)
    if request.colours is not None and (request.colours == "grey") != (channels == 1):
        expected = "grey" if channels == 1 else "rgb or bgr"
        raise UsageError(f"--colours {request.colours}: the model's input has {channels} channels; expected {expected}")
    try:
        return Geometry(
            sizes=dict(sizes),
            fit=request.fit or preset.fit,  # type: ignore[arg-type]
            colours=request.colours or preset.colours,  # type: ignore[arg-type]
            scale=preset.scale if request.scale is None else request.scale,
            mean=request.mean or preset.mean,
            std=request.std or preset.std,
        )
    except ValueError as error:
        raise UsageError(f"--mean and --std with these --colours: {error}") from None


def _preset(request: Request, dtype: str, channels: int) -> Preset:
    """What is usual for the decoder, for a model of these channels; one that takes bytes takes pixels as they are."""
    usual = preset_of(request.decoder)
    if channels == 1:
        usual = replace(usual, colours="grey", mean=(fmean(usual.mean),), std=(fmean(usual.std),))
    return replace(usual, scale=1.0, mean=(0.0,), std=(1.0,)) if dtype == "uint8" else usual


def user_code(reference: str | None) -> UserCode | None:
    """What a description states of a function of the user's; None for a name. UsageError when it cannot be imported."""
    return UserCode(*give(reference)) if reference is not None and ":" in reference else None


def decoder_of(request: Request) -> Decoder:
    """What decodes the outputs; UsageError for one that is not known."""
    code = user_code(request.decoder)
    boxes = request.task in ("detect", "text")
    if code is not None:
        return GivenDecoder(given(code, "--decode"), str(code))
    decoder = get_decoder(request.decoder, request.decode_options)
    if decoder.boxes != boxes:
        what, wanted = ("boxes", "values") if decoder.boxes else ("values", "boxes")
        raise UsageError(
            f"--decode {decoder.name} gives {what}; --task {request.task} needs a decoder that gives {wanted}"
        )
    return decoder


def decoding_of(request: Request, graphs: Mapping[int, FixedGraph]) -> Decoding:
    """How the outputs are read; UsageError, with their shapes, when the decoder does not take them."""
    outputs = {px: tuple(one_sample(shape) for shape in graph.output_shapes) for px, graph in graphs.items()}
    decoder = decoder_of(request)
    for shapes in outputs.values():
        check_fits(decoder, shapes)
        count = decoder.classes(shapes)
        if request.classes and count is not None and len(request.classes) != count:
            raise UsageError(
                f"--classes has {len(request.classes)} names; expected {count}: so many classes has the model with "
                f"the decoder {decoder.name!r}"
            )
    threshold = preset_of(request.decoder).threshold if request.threshold is None else request.threshold
    code = user_code(request.decoder)
    name = request.decoder if code is None else code.function
    return Decoding(name, outputs, dict(request.decode_options), threshold, code=code)


def one_sample(shape: Shape) -> Shape:
    """The shape of an output without the batch of one, as the last piece gives it."""
    return shape[1:] if shape[:1] == (1,) else shape


def first_description(request: Request, subject: Subject) -> Adoption:
    """The description of the whole model alone, before there is a truth."""
    stream, codecs = subject.footage.fps > 0, offered_codecs(request.codecs)
    changes: dict[str, Any] = {} if request.scenarios is None else {"conditions": request.scenarios}
    return Adoption(
        format_version=FORMAT_VERSION,
        name=request.name,
        task=request.task,  # type: ignore[arg-type]
        geometry=subject.geometry,
        decoding=subject.decoding,
        frame_shape=subject.frame_shape,
        footage=subject.footage,
        splits=by_time(subject.footage.frames),
        truth=Truth("model", "0" * 64),
        families={WHOLE: WholeFamily(len(subject.cut.stages))},
        classes=request.classes,
        image_codecs=codecs[IMAGE],
        tensor_codecs=codecs[TENSOR],
        frame_strides=STREAM_STRIDES if stream else (1,),
        scorer=user_code(request.scorer),
        demo=request.demo,
        **changes,
    )


def with_families(
    adoption: Adoption, families: Mapping[str, Family], decisions: Mapping[str, FamilyDecisions]
) -> Adoption:
    """The description with these families and what is legal for each."""
    images = decisions[WHOLE].image_codecs or adoption.image_codecs
    return msgspec.structs.replace(adoption, families=dict(families), decisions=dict(decisions), image_codecs=images)
