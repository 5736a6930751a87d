"""What is adopted: model and footage, read, checked against each other and cut, before any long work."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from runtime.adoption.cutting import CutModel, cut_model
from runtime.adoption.describing import decoder_of, decoding_of, geometry_of, user_code
from runtime.adoption.plain_truth import open_footage
from runtime.adoption.presets import preset_of
from runtime.adoption.request import Request
from runtime.adoption.source import open_source
from runtime.workloads.adopted.description import Decoding, Footage
from runtime.workloads.adopted.geometry import Geometry
from runtime.workloads.adopted.pictures import FrameReader, open_pictures


@dataclass(frozen=True)
class Subject:
    """A model that was cut, and the footage that it runs on."""

    footage: Footage
    frame_shape: tuple[int, ...]
    geometry: Geometry
    decoding: Decoding
    cut: CutModel


def open_subject(request: Request) -> Subject:
    """Read and check everything, and cut the model; UsageError or FailureError in one line for what does not fit."""
    decoder_of(request)
    user_code(request.scorer)
    footage, frame_shape = open_footage(request.footage)
    source = open_source(request.model, 1 if request.colours == "grey" else 3)
    sizes = source.sizes(frame_shape, request.resolutions_px, preset_of(request.decoder))
    geometry = geometry_of(request, sizes, source.dtype)
    graphs = {px: source.at(size) for px, size in sizes.items()}
    reader = FrameReader(open_pictures(request.footage), frame_shape, footage.step)
    frame = reader.frame(0)
    reader.close()

    def example(px: int) -> NDArray[np.float32]:
        values: NDArray[np.float32] = geometry.values(geometry.picture(frame, px)[None]).numpy()
        return values

    cut = cut_model(source.name, graphs, example)
    return Subject(footage, frame_shape, geometry, decoding_of(request, cut), cut)
