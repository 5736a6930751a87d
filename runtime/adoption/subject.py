"""What is adopted: model and footage, read, checked against each other and cut, before any long work."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace

import msgspec
import numpy as np
from numpy.typing import NDArray

from runtime.adoption.cutting import CutModel, cut_model
from runtime.adoption.describing import decoder_of, decoding_of, geometry_of, user_code
from runtime.adoption.presets import preset_of
from runtime.adoption.request import Request
from runtime.adoption.source import open_source
from runtime.adoption.steps import Advance
from runtime.adoption.truth.footage import DEFAULT_FPS, Found, by_time_of, look_at
from runtime.onnx_graphs.fixing import FixedGraph
from runtime.workloads.adopted.description import Decoding, Footage
from runtime.workloads.adopted.geometry import Geometry
from runtime.workloads.adopted.pictures import FrameReader, open_pictures
from runtime.workloads.types import Image

#: The whole model answers all frames at its largest resolution; with a slower one, fewer frames count.
REFERENCE_BUDGET_S = 300.0
LEAST_FRAMES = 150


@dataclass(frozen=True)
class Subject:
    """A model that was cut, and the footage that it runs on."""

    found: Found
    geometry: Geometry
    decoding: Decoding
    cut: CutModel
    pictures: int  # of the footage that would be frames if there were time for all

    @property
    def footage(self) -> Footage:
        return self.found.footage

    @property
    def frame_shape(self) -> tuple[int, ...]:
        return self.found.frame_shape


def open_subject(request: Request, advance: Advance) -> Subject:
    """Read and check everything, and cut the model; UsageError or FailureError in one line for what does not fit."""
    decoder = decoder_of(request)
    user_code(request.scorer)
    source = open_source(request.model, 1 if request.colours == "grey" else 3)
    decoded = [0]

    def count(pictures: int) -> None:
        decoded[0] += pictures
        advance(decoded[0], decoded[0])

    usual_fps = None if request.footage.is_dir() else DEFAULT_FPS
    found = look_at(request.footage, request.fps or usual_fps, request.frames, count)
    sizes = source.sizes(found.frame_shape, request.resolutions_px, preset_of(request.decoder))
    geometry = geometry_of(request, sizes, source.dtype, source.channels)
    graphs = {px: source.at(size) for px, size in sizes.items()}
    frame = _first_frame(request, found)

    def example(px: int) -> NDArray[np.float32]:
        values: NDArray[np.float32] = geometry.values(geometry.picture(frame, px)[None]).numpy()
        return values

    decoding = decoding_of(request, graphs)
    cut = cut_model(source.name, graphs, example, needs_size=decoder.needs_size)
    most = _frames_in_time(graphs[max(graphs)], example(max(graphs)), max(request.jobs, 1))
    return Subject(_shortened(found, most), geometry, decoding, cut, found.footage.frames)


def _first_frame(request: Request, found: Found) -> Image:
    reader = FrameReader(open_pictures(request.footage), found.frame_shape, found.footage.step)
    frame = reader.frame(0)
    reader.close()
    return frame


def _frames_in_time(graph: FixedGraph, image: NDArray[np.float32], jobs: int) -> int:
    begin_s = time.perf_counter()
    graph.run(image)
    taken_s = time.perf_counter() - begin_s
    return max(int(REFERENCE_BUDGET_S * jobs / max(taken_s, 1e-6)), LEAST_FRAMES)


def _shortened(found: Found, most: int) -> Found:
    """The first ``most`` frames of the footage."""
    frames = min(found.footage.frames, most)
    by_time_of(frames, found.footage.file)
    return replace(found, footage=msgspec.structs.replace(found.footage, frames=frames))
